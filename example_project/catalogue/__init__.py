"""Books, their editions and what readers say about them."""
