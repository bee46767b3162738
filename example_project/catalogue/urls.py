"""Where everything is."""

from django.urls import path

from . import reading_room, views, workloads

urlpatterns = [
    path("", views.shelf, name="shelf"),
    path("books/<slug:slug>/", views.book, name="book"),
    path("basket/", views.basket, name="basket"),
    path("recommendations/", views.recommendations, name="recommendations"),
    path("reading-room/", reading_room.reading_room, name="reading-room"),
    path("reading-room/feed/", reading_room.feed, name="feed"),
    path("slow/", views.delivery, name="delivery"),
    path("catalogue.csv", views.export, name="export"),
    path("media/photos/<uuid:name>.jpg", views.photo, name="photo"),
    path("hello", workloads.hello),
    path("json", workloads.facts),
    path("db", workloads.titles, name="titles"),
    path("template", workloads.about, name="about"),
    path("broken", workloads.broken),
]
