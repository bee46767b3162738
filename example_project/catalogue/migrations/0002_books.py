"""Fill the shelves: the same books, editions and reviews in every database."""

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from random import Random

from django.db import migrations
from django.utils.text import slugify

from ._classics import CLASSICS, EXTRAS, OPINIONS, READERS

BINDINGS = {"Paperback": "7.99", "Cloth": "16.50", "Large print": "21.00"}
OPENING = datetime(2025, 3, 1, 9, tzinfo=timezone.utc)
STARS = [5, 5, 5, 4, 4, 4, 3, 3, 2]


def fill(apps, schema_editor):
    Author, Genre, Book, Edition, Review = (
        apps.get_model("catalogue", name)
        for name in ("Author", "Genre", "Book", "Edition", "Review")
    )
    names = {genre for *_, books in CLASSICS for _, _, genre, _ in books}
    genres = {name: Genre.objects.create(name=name, slug=slugify(name)) for name in sorted(names)}
    authors = [Author(name=name, born=born, died=died) for name, born, died, _ in CLASSICS]
    Author.objects.bulk_create(authors)
    Book.objects.bulk_create(
        Book(title=title, slug=slugify(title), author=author, genre=genres[genre], year=year,
             description=description)
        for author, (*_, books) in zip(authors, CLASSICS)
        for title, year, genre, description in books
    )
    books = list(Book.objects.order_by("pk"))
    Edition.objects.bulk_create(edition for book in books for edition in editions(Edition, book))
    Review.objects.bulk_create(review for book in books for review in reviews(Review, book))


def editions(Edition, book):
    chance = Random(book.slug).random  # the one method that gives the same numbers everywhere
    for binding, base in BINDINGS.items():
        if binding == "Cloth" or chance() < 0.75:
            price = Decimal(base) + Decimal(int(chance() * 12)) / 2
            yield Edition(book=book, binding=binding, price=price, stock=int(chance() * 12))


def reviews(Review, book):
    chance = Random(f"{book.slug} reviews").random

    def pick(choices):
        return choices[int(chance() * len(choices))]

    for _ in range(1 + int(chance() * 4)):
        stars = pick(STARS)
        yield Review(
            book=book,
            name=pick(READERS),
            stars=stars,
            text=f"{pick(OPINIONS[stars])} {pick(EXTRAS)}".strip(),
            created=OPENING + timedelta(hours=int(chance() * 365 * 24)),
        )


class Migration(migrations.Migration):
    """Data only; going back leaves the tables to 0001."""

    dependencies = [("catalogue", "0001_initial")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
