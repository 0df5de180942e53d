"""Rows that carry the proof that they are as they were written."""

from __future__ import annotations

from django.db import models


class Digested(models.Model):
    """A row with the SHA-256 of its canonical text (`llm.digests`) as eight signed 32-bit words, big end first.

    Why words: the digest of a set of rows is the sum of theirs, and a plain SUM over 32-bit integers is exact and fits
    a BIGINT on PostgreSQL and SQLite up to 2**31 rows. So the digest of any set is just eight sums, of any grouping, in
    any order, and those of disjoint sets add up to that of their union.
    """

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
