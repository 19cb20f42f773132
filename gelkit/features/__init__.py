"""Stage one: pass every image once through a frozen backbone and keep the embeddings."""
