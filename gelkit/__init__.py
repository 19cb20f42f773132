"""gelkit: extract embeddings of gel images once, compare transfer-learning heads honestly."""

__version__ = "0.1.0"
