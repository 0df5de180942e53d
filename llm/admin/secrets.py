"""Keys and tokens pasted into a search: shortened to what we display, before anything shows them."""

from __future__ import annotations

import re

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict

# Looser than a well-formed key: one with a typo is nearly as secret.
_SECRET = re.compile(r"llmt?_[0-9A-Za-z]{20,}")
_PREFIX_LENGTH = 12


def reduce_secrets(text: str) -> str:
    return _SECRET.sub(lambda found: f"{found[0][:_PREFIX_LENGTH]}…{found[0][-4:]}", text)


def without_secrets(request: HttpRequest) -> HttpResponse | None:
    """A redirect to the same page with every key in its query shortened, or None if there is none."""
    reduced = QueryDict(mutable=True)
    for name, values in request.GET.lists():
        reduced.setlist(reduce_secrets(name), [reduce_secrets(value) for value in values])
    if reduced == request.GET:
        return None
    return HttpResponseRedirect(f"{request.path}?{reduced.urlencode()}")
