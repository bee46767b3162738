"""Walk through the whole shop as a visitor: python manage.py test."""

import csv
import io
import re
import shutil
import tempfile
from pathlib import Path

from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client, TestCase, override_settings
from PIL import Image

from .models import Book, Edition, Remark, Review
from .reading_room import reviews
from .similarity import likeness, walk, weigh

REVIEW = {"name": "Ada", "stars": 5, "text": "Read it twice."}


def picture(kind="PNG", size=(60, 90)):
    """Return the bytes of an image."""
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, kind)
    return file.getvalue()


class ShopTestCase(TestCase):
    """A visitor, and a folder for the photos of this test."""

    def setUp(self):
        self.media = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.media)
        settings = override_settings(MEDIA_ROOT=self.media)
        settings.enable()
        self.addCleanup(settings.disable)

    def page(self, url, status=200):
        """Return what the visitor sees at this address."""
        response = self.client.get(url)
        assert response.status_code == status, (url, response.status_code)
        return response.text


class PageTests(ShopTestCase):
    """Every page says what it should, with the books that the migration brings."""

    def test_the_shelf_has_pages(self):
        first, last = self.page("/"), self.page("/?page=99")
        assert "Books worth keeping" in first
        assert "A Christmas Carol" in first
        assert first.count('class="cover') == 24
        assert "Wuthering Heights" in last
        assert "Next →" not in last

    def test_search_looks_at_title_author_and_description(self):
        for words, title in ("pride", "Pride and Prejudice"), ("brontë", "Villette"), ("bet ", "Py"):
            assert title in self.page(f"/?q={words}")
        assert "Nothing here matches" in self.page("/?q=zzz")
        assert "&lt;script&gt;" in self.page("/?q=<script>")

    def test_a_shelf_is_a_genre_and_nonsense_finds_nothing(self):
        assert "Frankenstein" in self.page("/?genre=gothic")
        assert "Emma" not in self.page("/?genre=gothic")
        for nonsense in ("genre=cooking", "q=%00", f"q={'x' * 101}"):
            assert "Nothing here matches" in self.page(f"/?{nonsense}")

    def test_a_book_shows_author_editions_and_reviews(self):
        page = self.page("/books/emma/")
        assert "Jane Austen" in page
        assert "(1775" in page
        assert "Cloth" in page
        assert "Put in basket" in page
        assert "What readers say" in page

    def test_recommendations_follow_the_basket(self):
        assert "Your basket is empty" in self.page("/recommendations/?rounds=1")
        edition = Edition.objects.filter(book__slug="a-study-in-scarlet").first()
        self.client.post("/basket/", {"edition": edition.pk, "quantity": 1})
        page = self.page("/recommendations/?rounds=9999")
        assert "The Sign of the Four" in page
        assert "walked 500 rounds" in page

    def test_the_courier_is_asked_and_never_for_long(self):
        assert self.client.get("/slow/?seconds=0.01").json()["waited"] == 0.01
        assert self.client.get("/slow/?seconds=nan").json()["waited"] == 0
        self.page("/slow/?seconds=soon", 400)

    def test_the_catalogue_streams_a_row_for_each_book(self):
        response = self.client.get("/catalogue.csv")
        rows = list(csv.DictReader(io.StringIO(response.getvalue().decode())))
        assert response.streaming
        assert response["Content-Type"].startswith("text/csv")
        assert len(rows) == Book.objects.count() > 150
        assert all(re.fullmatch(r"\d+\.\d\d", row["price"]) for row in rows)

    def test_plain_answers_for_measuring(self):
        assert self.page("/hello") == "Hello from the bookshop.\n"
        assert self.client.get("/json").json()["shop"] == "Lamplight Books"
        assert len(self.client.get("/db").json()["books"]) == 20
        assert self.client.get("/db?q=heights").json()["books"] == [
            {"title": "Wuthering Heights", "author": "Emily Brontë"}
        ]
        assert "when it rains" in self.page("/template")

    def test_errors_have_pages(self):
        assert "Not on our shelves" in self.page("/nothing", 404)
        assert "Not on our shelves" in self.page("/books/nothing/", 404)
        self.client.raise_request_exception = False
        with self.assertLogs("django.request", "ERROR"):
            assert "Something fell over" in self.page("/broken", 500)

    def test_every_static_file_that_a_page_names_exists(self):
        names = set(re.findall(r'"/static/([^"]+)"', self.page("/")))
        assert len(names) == 4
        assert all(finders.find(name) for name in names)

    def test_the_back_room_lists_and_searches(self):
        self.client.force_login(User.objects.create_superuser("keeper"))
        for model in ("author", "book", "edition", "genre", "remark", "review"):
            self.page(f"/admin/catalogue/{model}/?q=a", 404 if model == "edition" else 200)
        assert "By genre" in self.page("/admin/catalogue/book/")
        self.page(f"/admin/catalogue/book/{Book.objects.get(slug='emma').pk}/change/")


class ReadingRoomTests(ShopTestCase):
    """What happens elsewhere is seen here; who comes back misses nothing."""

    def test_the_page_shows_what_came_last(self):
        Remark.objects.create(name="Ada", text="Has anybody read <i>Emma</i>?")
        page = self.page("/reading-room/")
        assert page.count('class="stars"') == 10
        last = Review.objects.order_by("pk").last()
        assert f"feed/?after={last.pk}" in page
        assert "&lt;i&gt;Emma" in page or "requirements-chat.txt" in page
        names = set(re.findall(r'"/static/([^"]+)"', page))
        assert "catalogue/reading_room.js" in names
        assert all(finders.find(name) for name in names)

    async def test_the_feed_is_a_stream_of_events(self):
        response = await self.async_client.get("/reading-room/feed/")
        assert response["Content-Type"] == "text/event-stream"
        assert response["Cache-Control"] == "no-store"

    async def test_who_follows_sees_old_and_new_rows_once(self):
        before = await reviews.newest()
        following = reviews.follow(before - 2)
        assert [(await anext(following)).pk for _ in range(2)] == [before - 1, before]
        book = await Book.objects.afirst()
        for _ in range(2):
            written = await Review.objects.acreate(book=book, name="Ada", stars=5, text="Again.")
            assert (await anext(following)).pk == written.pk
        await following.aclose()
        assert reviews.asking is None


class BasketTests(ShopTestCase):
    """A basket lives in the session and needs no login."""

    def test_copies_are_put_in_changed_and_taken_out(self):
        edition = Edition.objects.filter(book__slug="emma").first()
        for quantity, total in (1, edition.price), (3, edition.price * 3):
            self.client.post("/basket/", {"edition": edition.pk, "quantity": quantity})
            assert f"£{total}" in self.page("/basket/")
        self.client.post("/basket/", {"edition": edition.pk, "quantity": 0})
        assert "It is empty" in self.page("/basket/")

    def test_what_is_not_sold_is_refused(self):
        for order in {"edition": 10**30, "quantity": 1}, {"edition": 1, "quantity": 99}, {}:
            assert self.client.post("/basket/", order).status_code == 400


class ReviewTests(ShopTestCase):
    """Anybody may write a review; what they send is checked."""

    def publish(self, **extra):
        """Send a review of Emma, and return the answer."""
        return self.client.post("/books/emma/", REVIEW | extra, follow=True)

    def refuse(self, file, reason):
        """Check that this photo is refused, and that nothing was kept."""
        before = Review.objects.count()
        response = self.publish(photo=file)
        assert reason in response.text, response.context["form"].errors
        assert Review.objects.count() == before
        assert not list(self.media.rglob("*.*"))

    def test_a_form_without_its_token_is_refused(self):
        self.client = Client(enforce_csrf_checks=True)
        assert self.publish().status_code == 403
        token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', self.page("/books/emma/"))[1]
        assert "Thank you" in self.publish(csrfmiddlewaretoken=token).text

    def test_a_review_is_shown_and_cannot_carry_markup(self):
        assert "&lt;b&gt;bold" in self.publish(text="<b>bold").text

    def test_an_incomplete_review_says_what_is_missing(self):
        page = self.publish(name="", stars=6).text
        assert "This field is required" in page
        assert "6 is not one of the available choices" in page

    def test_a_photo_becomes_a_plain_small_jpeg(self):
        for kind in ("PNG", "JPEG", "WEBP"):
            content = picture(kind, (1800, 900))
            page = self.publish(photo=SimpleUploadedFile(f"me.{kind.lower()}", content)).text
            url = re.search(r'src="(/media/photos/[-\w]+\.jpg)"', page)[1]
            response = self.client.get(url)
            image = Image.open(io.BytesIO(response.getvalue()))
            assert (image.format, image.size) == ("JPEG", (1200, 600))
            assert response["Content-Type"] == "image/jpeg"
            assert response["X-Content-Type-Options"] == "nosniff"
            assert "sandbox" in response["Content-Security-Policy"]

    def test_only_photos_are_sent_from_the_media_folder(self):
        (self.media / "secret.jpg").touch()
        for name in ("secret.jpg", "photos/../secret.jpg", "photos/%2e%2e/secret.jpg"):
            self.page(f"/media/{name}", 404)
        self.page("/media/photos/00000000-0000-0000-0000-000000000000.jpg", 404)

    def test_what_is_not_a_photo_is_refused(self):
        svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
        for name, content in ("a.png", b"not an image"), ("a.png", svg), ("a.png", b"GIF89a"):
            self.refuse(SimpleUploadedFile(name, content), "Upload a valid image")
        self.refuse(SimpleUploadedFile("a.svg", svg, "image/svg+xml"), "Upload a valid image")
        self.refuse(SimpleUploadedFile("a.svg", picture()), "is not allowed")
        self.refuse(SimpleUploadedFile("a.gif", picture("GIF")), "Please send a JPEG")

    def test_too_large_and_damaged_photos_are_refused(self):
        heavy = picture() + bytes(5 * 2**20)
        self.refuse(SimpleUploadedFile("a.png", heavy), "larger than 5 MB")
        self.refuse(SimpleUploadedFile("a.png", picture(size=(8000, 5001))), "40 million pixels")
        damaged = picture("JPEG", (900, 900))[:-2000]
        self.refuse(SimpleUploadedFile("a.jpg", damaged), "damaged")


class SimilarityTests(TestCase):
    """The arithmetic behind the recommendations."""

    def test_a_walk_prefers_what_is_alike(self):
        rows = likeness(weigh(["whale sea ship", "sea ship storm", "ball dance", "dance gown"]))
        visits = walk(rows, {0}, 20)
        assert abs(sum(visits) - 1) < 1e-9
        assert visits[1] > visits[2] == visits[3] == 0
