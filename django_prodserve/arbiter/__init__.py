"""What lives in the running server: each module says in which process and thread."""
