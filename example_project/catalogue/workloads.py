"""Four plain views to measure a server with, and one that fails."""

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render

from .models import Book

HOURS = {"Monday to Friday": "10 to 19", "Saturday": "10 to 17", "Sunday": "when it rains"}


def hello(request):
    """Answer with a few bytes of text."""
    return HttpResponse("Hello from the bookshop.\n", content_type="text/plain; charset=utf-8")


def facts(request):
    """Answer with a little JSON, no database."""
    return JsonResponse({"shop": "Lamplight Books", "since": 1859, "open": True})


def titles(request):
    """Answer with 20 rows of the database; the search box asks here while one types."""
    books = Book.objects.select_related("author")
    if words := request.GET.get("q", "")[:100].replace("\0", ""):
        books = books.matching(words)
    rows = [{"title": book.title, "author": book.author.name} for book in books[:20]]
    return JsonResponse({"books": rows})


def about(request):
    """Answer with a page from a template, no database."""
    return render(request, "catalogue/about.html", {"hours": HOURS.items()})


def broken(request):
    """Fail, to see the page for it and the line in the log."""
    raise RuntimeError("This page always fails.")
