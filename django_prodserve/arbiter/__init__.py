"""The master process of the running server. Each module names the process and thread in which it runs."""
