"""Treadle: a PyTorch trainer that is exact, free and plain."""
