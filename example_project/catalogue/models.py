"""Authors write books, books have editions, readers review them."""

from uuid import uuid4

from django.db import models
from django.db.models import Avg, Count, Min, Q
from django.urls import reverse
from django.utils import timezone


class Author(models.Model):
    """Somebody who wrote a book."""

    name = models.CharField(max_length=100, unique=True)
    born = models.SmallIntegerField()
    died = models.SmallIntegerField(null=True, blank=True)

    class Meta:
        ordering = ("name",)

    def __str__(self):
        return self.name


class Genre(models.Model):
    """A shelf of the shop."""

    name = models.CharField(max_length=40, unique=True)
    slug = models.SlugField(unique=True)

    class Meta:
        ordering = ("name",)

    def __str__(self):
        return self.name


class BookQuerySet(models.QuerySet):
    """Books as the pages show them."""

    def shelf(self):
        """Return the books with author, genre, average stars and lowest price."""
        books = self.annotate(
            stars=Avg("reviews__stars"),
            opinions=Count("reviews", distinct=True),
            price=Min("editions__price"),
        )
        return books.select_related("author", "genre").order_by("title", "pk")

    def matching(self, words):
        """Return the books with these words in title, author or description."""
        return self.filter(
            Q(title__icontains=words) | Q(author__name__icontains=words) | Q(description__icontains=words)
        )


class Book(models.Model):
    """A work, whatever its edition."""

    title = models.CharField(max_length=200, db_index=True)
    slug = models.SlugField(max_length=200, unique=True)
    author = models.ForeignKey(Author, models.PROTECT, related_name="books")
    genre = models.ForeignKey(Genre, models.PROTECT, related_name="books")
    year = models.SmallIntegerField("first published")
    description = models.TextField()

    objects = BookQuerySet.as_manager()

    class Meta:
        ordering = ("title", "pk")

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("book", args=[self.slug])

    @property
    def cover(self):
        """Return the CSS classes of its binding: cloth and ornament."""
        return f"cloth-{self.pk % 7} ornament-{self.pk % 4}"


class Edition(models.Model):
    """A book as one can buy it."""

    book = models.ForeignKey(Book, models.CASCADE, related_name="editions")
    binding = models.CharField(max_length=20)
    price = models.DecimalField(max_digits=6, decimal_places=2)
    stock = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ("price",)
        constraints = (models.UniqueConstraint(fields=["book", "binding"], name="one_per_binding"),)

    def __str__(self):
        return f"{self.book}, {self.binding.lower()}"


def photo_name(review, filename):
    """Return a name that nobody can choose or guess; what the visitor called it is forgotten."""
    return f"photos/{uuid4()}.jpg"


class Review(models.Model):
    """What a reader thinks of a book, perhaps with a photo of his copy."""

    class Stars(models.IntegerChoices):
        """How much they liked it."""

        FIVE = 5, "★★★★★ Loved it"
        FOUR = 4, "★★★★ Liked it"
        THREE = 3, "★★★ Fine"
        TWO = 2, "★★ Not for me"
        ONE = 1, "★ Gave up"

    book = models.ForeignKey(Book, models.CASCADE, related_name="reviews")
    name = models.CharField("your name", max_length=60)
    stars = models.PositiveSmallIntegerField("your verdict", choices=Stars)
    text = models.TextField("your review", max_length=2000)
    photo = models.ImageField(upload_to=photo_name, blank=True)
    created = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ("-created", "-pk")

    def __str__(self):
        return f"{self.name} on {self.book}"

    def as_dict(self):
        """Return what the page's script shows of it."""
        return {
            "name": self.name,
            "stars": self.get_stars_display(),
            "text": self.text,
            "book": str(self.book),
            "url": self.book.get_absolute_url(),
        }


class Remark(models.Model):
    """Something that a visitor has said in the reading room."""

    name = models.CharField("your name", max_length=40)
    text = models.CharField("your words", max_length=300)
    created = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("pk",)

    def __str__(self):
        return f"{self.name}: {self.text}"

    def as_dict(self):
        """Return what the page's script shows of it."""
        return {"id": self.pk, "name": self.name, "text": self.text}
