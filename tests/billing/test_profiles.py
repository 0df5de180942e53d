"""What a billing profile may say."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from tests.billing.factories import make_profile

pytestmark = pytest.mark.django_db


def test_payment_terms_that_no_calendar_holds_are_refused() -> None:
    """A due date is reckoned from them when an invoice is issued: too late to find out."""
    profile = make_profile()
    profile.payment_days = 3650
    profile.full_clean()
    profile.payment_days = 3651
    with pytest.raises(ValidationError, match="Give at most 3650 days"):
        profile.full_clean()
