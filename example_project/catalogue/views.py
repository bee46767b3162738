"""The pages of the shop."""

import csv
import time

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.core.files.storage import default_storage
from django.core.paginator import Paginator
from django.http import FileResponse, Http404, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_GET, require_safe

from .forms import BasketForm, ReviewForm, SearchForm
from .models import Book, Edition, Genre, Review
from .similarity import likeness, walk, weigh


@require_safe
def shelf(request):
    """Show the books, a page at a time, perhaps only some."""
    form = SearchForm(request.GET)
    books = Book.objects.shelf() if form.is_valid() else Book.objects.none()
    if q := form.cleaned_data.get("q"):
        books = books.matching(q)
    if genre := form.cleaned_data.get("genre"):
        books = books.filter(genre=genre)
    page = Paginator(books, 24).get_page(request.GET.get("page"))
    pages = page.paginator.get_elided_page_range(page.number, on_each_side=1, on_ends=1)
    context = {"page": page, "pages": pages, "q": q, "genre": genre, "genres": Genre.objects.all()}
    return render(request, "catalogue/shelf.html", context)


def book(request, slug):
    """Show a book with its editions and reviews, and take a new review."""
    book = get_object_or_404(Book.objects.shelf(), slug=slug)
    form = ReviewForm(request.POST or None, request.FILES or None, instance=Review(book=book))
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, "Thank you, your review is on the shelf.")
        # A browser would keep the form's own #review, far below the message.
        return redirect(f"{book.get_absolute_url()}#main")
    return render(request, "catalogue/book.html", {"book": book, "form": form})


def basket(request):
    """Show the basket, or change how many copies of an edition are in it."""
    wanted = request.session.get("basket", {})
    if request.method == "POST":
        form = BasketForm(request.POST)
        if not form.is_valid():
            raise BadRequest("There is no such edition, or too many of it.")
        edition, quantity = form.cleaned_data["edition"], form.cleaned_data["quantity"]
        wanted.pop(str(edition.pk), None)
        request.session["basket"] = wanted | ({str(edition.pk): quantity} if quantity else {})
        return redirect("basket")
    editions = Edition.objects.filter(pk__in=wanted).select_related("book__author")
    lines = [(edition, wanted[str(edition.pk)]) for edition in editions]
    total = sum(edition.price * quantity for edition, quantity in lines)
    return render(request, "catalogue/basket.html", {"lines": lines, "total": total})


@require_GET
def export(request):
    """Stream the catalogue as CSV, row by row from the database."""

    class Echo:
        write = staticmethod(str)

    def rows():
        yield "title", "author", "born", "died", "genre", "year", "stars", "price"
        for book in Book.objects.shelf().iterator(chunk_size=100):
            by = book.author
            stars, price = f"{book.stars or 0:.1f}", f"{book.price or 0:.2f}"
            yield book, by, by.born, by.died, book.genre, book.year, stars, price

    lines = map(csv.writer(Echo()).writerow, rows())
    headers = {"Content-Disposition": 'attachment; filename="catalogue.csv"'}
    return StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8", headers=headers)


@require_safe
@cache_control(public=True, max_age=86400)
def photo(request, name):
    """Send a reader's photo; always a JPEG that we drew, and nothing else from this folder."""
    try:
        file = default_storage.open(f"photos/{name}.jpg")
    except FileNotFoundError:
        raise Http404 from None
    headers = {"Content-Security-Policy": "default-src 'none'; sandbox"}
    return FileResponse(file, content_type="image/jpeg", headers=headers)


@require_GET
def delivery(request):
    """Ask the courier for a quote, and wait for the answer: ?seconds=, 30 at most."""
    seconds = bounded(request.GET.get("seconds", "0.05"), 0, 30)
    time.sleep(seconds)
    return JsonResponse({"courier": "Penny Post", "price": "3.20", "days": 2, "waited": seconds})


@require_safe
def recommendations(request):
    """Compare every book with every other, then walk from the basket: ?rounds=, 500 at most."""
    rounds = int(bounded(request.GET.get("rounds", "10"), 1, 500))
    began = time.perf_counter()
    books = list(Book.objects.shelf())
    texts = [f"{book.title} {book.author} {book.genre} {book.description}" for book in books]
    wanted = Edition.objects.filter(pk__in=request.session.get("basket", {}))
    chosen = set(wanted.values_list("book_id", flat=True))
    start = {place for place, book in enumerate(books) if book.pk in chosen}
    visits = walk(likeness(weigh(texts)), start or range(len(books)), rounds)
    ranked = sorted(zip(visits, range(len(books)), strict=True), reverse=True)
    context = {
        "books": [books[place] for _, place in ranked if place not in start][:12],
        "chosen": [books[place] for place in sorted(start)],
        "pairs": len(books) * (len(books) - 1),
        "rounds": rounds,
        "milliseconds": (time.perf_counter() - began) * 1000,
    }
    return render(request, "catalogue/recommendations.html", context)


def bounded(text, low, high):
    """Return the number within its bounds."""
    try:
        return min(high, max(low, float(text)))  # in this order, "nan" becomes low
    except ValueError:
        raise BadRequest("This is not a number.") from None
