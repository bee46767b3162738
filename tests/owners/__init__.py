"""Django's and asgiref's own tests, run with what a server changes in Django and asgiref."""
