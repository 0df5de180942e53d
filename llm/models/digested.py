"""Rows with a digest that proves that they are as they were written."""

from __future__ import annotations

from typing import ClassVar, Self

from django.db import models
from django.db.models import Q

from llm.digests import DIGEST_FIELDS, VERSION, Words, digest_words

NO_DIGEST = Q(**dict.fromkeys(DIGEST_FIELDS))
WHOLE_DIGEST = Q(**{f"{name}__isnull": False for name in DIGEST_FIELDS})


class Digested(models.Model):
    """A row with the SHA-256 of its canonical text (`llm.digests`) as eight signed 32-bit words, most significant
    first.

    Why words: the digest of a set of rows is the sum of theirs, and a plain SUM over 32-bit integers is exact and fits
    a BIGINT on PostgreSQL and SQLite up to 2**31 rows. So the digest of any set is just eight sums, of any grouping, in
    any order, and those of disjoint sets add up to that of their union.
    digest_version: of the canonical text. Rows older than this column are of version 1, and stay so.
    is_proven: for models whose rows, including moments, are part of a stored digest; see `manage.py loaddata`.
    """

    is_proven: ClassVar[bool] = True

    digest_version = models.PositiveSmallIntegerField(default=1, db_default=1, editable=False)
    digest_0 = models.IntegerField(null=True, editable=False)
    digest_1 = models.IntegerField(null=True, editable=False)
    digest_2 = models.IntegerField(null=True, editable=False)
    digest_3 = models.IntegerField(null=True, editable=False)
    digest_4 = models.IntegerField(null=True, editable=False)
    digest_5 = models.IntegerField(null=True, editable=False)
    digest_6 = models.IntegerField(null=True, editable=False)
    digest_7 = models.IntegerField(null=True, editable=False)

    class Meta:
        abstract = True

    def canonical_text(self) -> bytes:
        """The current values, as bytes to digest; defined by each model. Raises TypeError if they can't be encoded."""
        raise NotImplementedError

    def computed_digest(self) -> Words:
        """The digest of the current values, whatever the columns contain."""
        return digest_words(self.canonical_text())

    def stamp_digest(self) -> Self:
        """Set the columns, to the current version. The books' writer does this itself."""
        self.digest_version = VERSION
        for name, word in zip(DIGEST_FIELDS, self.computed_digest(), strict=True):
            setattr(self, name, word)
        return self

    @property
    def is_as_written(self) -> bool:
        """Whether the columns contain the digest of the row's values. False also if the values can't be encoded."""
        try:
            return self.digest == self.computed_digest()
        except TypeError:
            return False

    @property
    def digest(self) -> tuple[int | None, ...]:
        """The digest in the columns."""
        return tuple(getattr(self, name) for name in DIGEST_FIELDS)
