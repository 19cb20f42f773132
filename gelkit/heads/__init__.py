"""Stage two: train, compare and keep the heads on cached embeddings."""
