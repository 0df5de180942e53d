from __future__ import annotations

from datetime import timedelta
from socket import gethostname
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import Client
from django.utils import timezone

from llm.models import BooksCheck, Process, RefusedWrite, ScheduledTask
from tests.llm.admin.factories import make_account, make_key, save, staff_with, usage_row

pytestmark = pytest.mark.django_db

REFUSED, CHECKS, PROCESSES = "/admin/llm/refusedwrite/", "/admin/llm/bookscheck/", "/admin/llm/process/"


def make_refusal(usage_id: UUID, **values: Any) -> RefusedWrite:
    defaults = {"digest": uuid4().hex, "reason": "the row says otherwise", "document": {"prompt_tokens": 12}}
    return RefusedWrite.objects.create(usage_id=usage_id, **{**defaults, **values})


def make_check(problems: int = 0, **values: Any) -> BooksCheck:
    now = timezone.now()
    defaults = {"started_at": now - timedelta(seconds=90), "ended_at": now, "rows": 12_345, "windows": 67}
    return BooksCheck.objects.create(problems=problems, **{**defaults, **values})


def make_process(host: str, *, silent_for: timedelta = timedelta(), **values: Any) -> Process:
    now = timezone.now()
    return Process.objects.create(
        id=uuid4(), host=host, pid=17, started_at=now - timedelta(days=1), seen_at=now - silent_for, **values
    )


def listed(client: Client, url: str, **query: str) -> list[Any]:
    """Without this machine's own processes: gateways of other tests may beat meanwhile."""
    rows = client.get(url, query).context["cl"].result_list
    return [row for row in rows if not isinstance(row, Process) or row.host != gethostname()]


def test_a_refused_write_shows_its_document_and_leads_to_its_call(admin_client: Client) -> None:
    (call,) = save(usage_row(make_key(make_account())))
    refused = make_refusal(call.pk, document={"reply": "<script>", "counts": {"prompt_tokens": 12}})

    page = admin_client.get(f"{REFUSED}{refused.pk}/change/").content.decode()

    assert f'href="/admin/llm/usage/{call.pk}/change/"' in page
    assert "&quot;prompt_tokens&quot;: 12" in page
    assert "<script>" not in page.partition("Rejected content")[2].partition("</pre>")[0]


def test_a_refused_write_of_no_call_says_so(admin_client: Client) -> None:
    refused = make_refusal(uuid4())

    page = admin_client.get(f"{REFUSED}{refused.pk}/change/").content.decode()

    assert "There is no call with this id on the books." in page
    assert f"/admin/llm/usage/{refused.usage_id}/change/" not in page


def test_refused_writes_are_found_by_their_call(admin_client: Client) -> None:
    one, _ = make_refusal(uuid4()), make_refusal(uuid4())

    assert listed(admin_client, REFUSED, q=str(one.usage_id)) == [one]
    assert listed(admin_client, REFUSED, q="nonsense") == []


def test_a_check_shows_its_findings(admin_client: Client) -> None:
    sound, broken = make_check(), make_check(3, findings=["Window 5 holds 7 too many.", "Window 6 <b>."])

    row = admin_client.get(CHECKS).content.decode()
    page = admin_client.get(f"{CHECKS}{broken.pk}/change/").content.decode()

    for text in ("3 problems", "no problems", "12,345", "1 min 30 s"):
        assert text in row
    for text in ("Window 5 holds 7 too many.", "Window 6 &lt;b&gt;.", "The first 2 of 3."):
        assert text in page
    assert "None: every total" in admin_client.get(f"{CHECKS}{sound.pk}/change/").content.decode()
    assert listed(admin_client, CHECKS, result="problems") == [broken]
    assert listed(admin_client, CHECKS, result="none") == [sound]


def test_a_process_is_alive_silent_or_ended(admin_client: Client, settings: Any) -> None:
    settings.LLM_REAP_AFTER_SECONDS = 60.0
    alive = make_process("alpha", silent_for=timedelta(seconds=30))
    silent = make_process("beta", silent_for=timedelta(seconds=90))
    ended = make_process("gamma", silent_for=timedelta(days=1), ended_at=timezone.now())

    states = {state: listed(admin_client, PROCESSES, state=state) for state in ("alive", "silent", "ended")}

    assert states == {"alive": [alive], "silent": [silent], "ended": [ended]}
    for process, state in ((alive, "alive"), (silent, "silent"), (ended, "ended")):
        page = admin_client.get(f"{PROCESSES}{process.pk}/change/").content.decode()
        assert f">{state}</span>" in page


@pytest.mark.parametrize("name", ["refusedwrite", "bookscheck", "process", "scheduledtask"])
def test_they_can_only_be_looked_at(admin_client: Client, name: str) -> None:
    rows = {
        "refusedwrite": make_refusal(uuid4()),
        "bookscheck": make_check(),
        "process": make_process("alpha"),
        "scheduledtask": ScheduledTask.objects.create(name="tasks", started_at=timezone.now()),
    }
    url, viewer = f"/admin/llm/{name}/", staff_with(f"view_{name}")
    page = f"{url}{rows[name].pk}/"

    assert [viewer.get(address).status_code for address in (url, f"{page}change/")] == [200, 200]
    assert admin_client.get(f"{url}add/").status_code == 403
    assert admin_client.post(f"{page}change/", {"reason": "x", "host": "x"}).status_code == 403
    assert admin_client.post(f"{page}delete/", {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("url", [REFUSED, CHECKS, PROCESSES])
def test_they_take_their_permission(url: str) -> None:
    assert staff_with("view_usage").get(url).status_code == 403


@pytest.mark.parametrize("url", [REFUSED, CHECKS, PROCESSES])
def test_lists_take_few_queries(admin_client: Client, url: str, django_assert_max_num_queries: Any) -> None:
    for number in range(30):
        make_refusal(uuid4())
        make_check()
        make_process(f"host {number}")

    with django_assert_max_num_queries(5):
        assert len(listed(admin_client, url)) == 30
