"""The app of the bookshop."""

from django.apps import AppConfig


class CatalogueConfig(AppConfig):
    """Everything that the shop sells and shows."""

    name = "catalogue"
