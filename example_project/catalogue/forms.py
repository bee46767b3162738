"""What visitors may send, and what is refused."""

from io import BytesIO

from django import forms
from django.core.files.base import ContentFile
from PIL import Image, ImageOps

from .models import Edition, Genre, Remark, Review

PHOTO_BYTES = 5 * 2**20
PHOTO_PIXELS = 40_000_000  # a phone's camera has 12 to 50 million; decoded, each takes 3 bytes
PHOTO_SIDE = 1200


class SearchForm(forms.Form):
    """Words and a shelf; either may be missing."""

    q = forms.CharField(max_length=100, required=False)
    genre = forms.ModelChoiceField(Genre.objects.all(), to_field_name="slug", required=False)


class BasketForm(forms.Form):
    """How many copies of an edition the visitor wants; 0 takes it out."""

    edition = forms.ModelChoiceField(Edition.objects.all())
    quantity = forms.IntegerField(min_value=0, max_value=9)


class RemarkForm(forms.ModelForm):
    """What a visitor says in the reading room."""

    class Meta:
        model = Remark
        fields = ("name", "text")


class ReviewForm(forms.ModelForm):
    """A review from anybody; the photo is drawn again, so nothing hidden in the file survives."""

    class Meta:
        model = Review
        fields = ("name", "stars", "text", "photo")
        widgets = {
            "name": forms.TextInput(attrs={"autocomplete": "given-name"}),
            "text": forms.Textarea(attrs={"rows": 4}),
            "photo": forms.FileInput(attrs={"accept": "image/jpeg,image/png,image/webp"}),
        }
        help_texts = {"photo": "JPEG, PNG or WebP, up to 5 MB, if you like."}

    def clean_photo(self):
        """Return the photo as a plain JPEG of modest size."""
        photo = self.cleaned_data["photo"]
        if not photo:
            return photo
        if photo.size > PHOTO_BYTES:
            raise forms.ValidationError("This file is larger than 5 MB.")
        if photo.image.format not in {"JPEG", "PNG", "WEBP"}:
            raise forms.ValidationError("Please send a JPEG, PNG or WebP image.")
        if photo.image.width * photo.image.height > PHOTO_PIXELS:
            raise forms.ValidationError("This image has more than 40 million pixels.")
        try:
            return ContentFile(redraw(photo), name="photo.jpg")
        except Exception as error:  # on damaged files Pillow raises almost anything
            raise forms.ValidationError("This image is damaged.") from error


def redraw(file):
    """Return the picture as JPEG bytes: upright, small, without metadata."""
    file.seek(0)
    with Image.open(file) as image:
        image.draft("RGB", (PHOTO_SIDE, PHOTO_SIDE))  # a large JPEG is decoded small
        image.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
        upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.info.clear()
    jpeg = BytesIO()
    upright.save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()
