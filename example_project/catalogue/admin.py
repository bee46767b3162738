"""The back room of the shop."""

from django.contrib import admin

from .models import Author, Book, Edition, Genre, Remark, Review


@admin.register(Author)
class AuthorAdmin(admin.ModelAdmin):
    """Authors, found by name."""

    list_display = ("name", "born", "died")
    search_fields = ("name",)


@admin.register(Genre)
class GenreAdmin(admin.ModelAdmin):
    """Shelves."""

    prepopulated_fields = {"slug": ("name",)}


class EditionInline(admin.TabularInline):
    """The editions of a book, on its page."""

    model = Edition
    extra = 0


@admin.register(Book)
class BookAdmin(admin.ModelAdmin):
    """Books with their editions."""

    list_display = ("title", "author", "genre", "year")
    list_filter = ("genre", "editions__binding")
    list_select_related = ("author", "genre")
    search_fields = ("title", "author__name")
    autocomplete_fields = ("author",)
    prepopulated_fields = {"slug": ("title",)}
    inlines = (EditionInline,)


@admin.register(Review)
class ReviewAdmin(admin.ModelAdmin):
    """Reviews to read and, now and then, to remove."""

    list_display = ("book", "name", "stars", "created")
    list_filter = ("stars", "created", ("photo", admin.EmptyFieldListFilter))
    list_select_related = ("book",)
    search_fields = ("book__title", "name", "text")
    date_hierarchy = "created"
    readonly_fields = ("photo",)  # only the review form draws photos again
    autocomplete_fields = ("book",)


@admin.register(Remark)
class RemarkAdmin(admin.ModelAdmin):
    """What was said in the reading room, to remove now and then."""

    list_display = ("name", "text", "created")
    search_fields = ("name", "text")
