"""The pages that a teacher sees on a phone: what there is to learn, and how the truck does. HTML from Python strings.

One inline style sheet named by its hash in the Content-Security-Policy, no script, no foreign request, light and dark.
Amharic, English, French, Portuguese and Swahili, by Accept-Language (RFC 9110 section 12.5.4), else as edge.toml says.
Deliberately absent: anything that changes state.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final
from urllib.parse import quote

from edge.clock import ClockState
from edge.content import OpenedFolder
from edge.status import EdgeStatus, LinkStatus, VersionStatus, format_age, format_bytes

_LANGUAGES_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class ServedBundle:
    """A bundle whose active version is here to be read; `title` may be empty, then the name stands for it."""

    name: str
    version: str
    title: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Words:
    language: str
    classroom: str
    content: str
    no_content: str
    state: str
    connection: str
    last_contact: str
    never: str
    ago: str
    link: str
    usable: str
    down: str
    unknown: str
    left: str
    no_cap: str
    waiting: str
    nothing_waiting: str
    reports: str
    updates: str
    up_to_date: str
    arriving: str
    clock: str
    clock_synced: str
    clock_unsynced: str
    free: str
    days: str
    folder: str
    lesson: str
    up: str
    more: str


_ENGLISH: Final = _Words(
    language="en",
    classroom="Classroom",
    content="What is here",
    no_content="No content has arrived yet.",
    state="How the truck is doing",
    connection="Connection",
    last_contact="Last contact with the office",
    never="never",
    ago="{age} ago",
    link="Link {name}",
    usable="working",
    down="not working",
    unknown="not tried yet",
    left="{left} left in this period",
    no_cap="no limit",
    waiting="Waiting to be sent",
    nothing_waiting="nothing",
    reports="{count} reports, {size}",
    updates="Updates",
    up_to_date="all up to date",
    arriving="{name}: {desired} is on its way",
    clock="Clock",
    clock_synced="right",
    clock_unsynced="not known; it sets itself at the next contact",
    free="Free space",
    days="days",
    folder="Files in {name}",
    lesson="Enter a lesson",
    up="Back",
    more="There are more files than can be shown here.",
)
_FRENCH: Final = _Words(
    language="fr",
    classroom="Salle de classe",
    content="Ce qui se trouve ici",
    no_content="Aucun contenu n’est encore arrivé.",
    state="L’état du camion",
    connection="Connexion",
    last_contact="Dernier contact avec le bureau",
    never="jamais",
    ago="il y a {age}",
    link="Liaison {name}",
    usable="fonctionne",
    down="ne fonctionne pas",
    unknown="pas encore essayée",
    left="encore {left} pour cette période",
    no_cap="sans limite",
    waiting="En attente d’envoi",
    nothing_waiting="rien",
    reports="{count} rapports, {size}",
    updates="Mises à jour",
    up_to_date="tout est à jour",
    arriving="{name} : {desired} est en route",
    clock="Horloge",
    clock_synced="à l’heure",
    clock_unsynced="inconnue ; elle se règle au prochain contact",
    free="Espace libre",
    days="jours",
    folder="Fichiers de {name}",
    lesson="Enregistrer une leçon",
    up="Retour",
    more="Il y a plus de fichiers qu’on ne peut en montrer ici.",
)
_SWAHILI: Final = _Words(
    language="sw",
    classroom="Darasa",
    content="Yaliyomo hapa",
    no_content="Hakuna maudhui yaliyofika bado.",
    state="Hali ya lori",
    connection="Muunganisho",
    last_contact="Mawasiliano ya mwisho na ofisi",
    never="bado kabisa",
    ago="{age} zilizopita",
    link="Kiungo {name}",
    usable="kinafanya kazi",
    down="hakifanyi kazi",
    unknown="bado hakijajaribiwa",
    left="zimebaki {left} kwa kipindi hiki",
    no_cap="bila kikomo",
    waiting="Zinazosubiri kutumwa",
    nothing_waiting="hakuna",
    reports="ripoti {count}, {size}",
    updates="Masasisho",
    up_to_date="vyote ni vya kisasa",
    arriving="{name}: {desired} iko njiani",
    clock="Saa",
    clock_synced="ni sahihi",
    clock_unsynced="haijulikani; itajirekebisha wakati wa mawasiliano yajayo",
    free="Nafasi iliyobaki",
    days="siku",
    folder="Faili za {name}",
    lesson="Andika somo",
    up="Rudi",
    more="Kuna faili nyingi zaidi ya zinazoweza kuonyeshwa hapa.",
)
_PORTUGUESE: Final = _Words(
    language="pt",
    classroom="Sala de aula",
    content="O que há aqui",
    no_content="Ainda não chegou nenhum conteúdo.",
    state="O estado do camião",
    connection="Ligação",
    last_contact="Último contacto com o escritório",
    never="nunca",
    ago="há {age}",
    link="Ligação {name}",
    usable="funciona",
    down="não funciona",
    unknown="ainda não experimentada",
    left="restam {left} neste período",
    no_cap="sem limite",
    waiting="À espera de envio",
    nothing_waiting="nada",
    reports="{count} relatórios, {size}",
    updates="Atualizações",
    up_to_date="tudo atualizado",
    arriving="{name}: {desired} está a caminho",
    clock="Relógio",
    clock_synced="certo",
    clock_unsynced="desconhecido; acerta-se no próximo contacto",
    free="Espaço livre",
    days="dias",
    folder="Ficheiros de {name}",
    lesson="Registar uma aula",
    up="Voltar",
    more="Há mais ficheiros do que se podem mostrar aqui.",
)
_AMHARIC: Final = _Words(
    language="am",
    classroom="የመማሪያ ክፍል",
    content="እዚህ ያለው",
    no_content="እስካሁን ምንም ይዘት አልደረሰም።",
    state="የተሽከርካሪው ሁኔታ",
    connection="ግንኙነት",
    last_contact="ከቢሮው ጋር የመጨረሻው ግንኙነት",
    never="በጭራሽ",
    ago="ከ{age} በፊት",
    link="መስመር {name}",
    usable="ይሠራል",
    down="አይሠራም",
    unknown="ገና አልተሞከረም",
    left="በዚህ ጊዜ {left} ቀርቷል",
    no_cap="ገደብ የለም",
    waiting="ለመላክ በመጠበቅ ላይ",
    nothing_waiting="ምንም",
    reports="{count} ሪፖርቶች፣ {size}",
    updates="ዝማኔዎች",
    up_to_date="ሁሉም ወቅታዊ ነው",
    arriving="{name}፦ {desired} በመንገድ ላይ ነው",
    clock="ሰዓት",
    clock_synced="ትክክል",
    clock_unsynced="አይታወቅም፤ በሚቀጥለው ግንኙነት ይስተካከላል",
    free="ነፃ ቦታ",
    days="ቀናት",
    folder="የ{name} ፋይሎች",
    lesson="ትምህርት መዝግብ",
    up="ተመለስ",
    more="እዚህ ሊታዩ ከሚችሉት በላይ ፋይሎች አሉ።",
)
_BY_LANGUAGE: Final = {each.language: each for each in (_AMHARIC, _ENGLISH, _FRENCH, _PORTUGUESE, _SWAHILI)}

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--card:#f3f5f7;--link:#0b57b0;--bad:#a3260b}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#a5adb5;--paper:#14171a;--card:#1f2429;--link:#8bb9ff;
--bad:#ff9d85}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:42rem;font:1.05rem/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper);overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.5rem 0 1rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}
a{color:var(--link)}ul{list-style:none;margin:0;padding:0}
li a{display:block;margin:.5rem 0;padding:.8rem 1rem;border-radius:.5rem;background:var(--card)}
small{color:var(--soft);display:block}
dl{margin:0}dt{color:var(--soft);margin-top:.7rem}dd{margin:0}.bad{color:var(--bad)}
"""
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def choose_language(accept_language: str | None, otherwise: str = "en") -> str:
    """Return the language of these pages that the Accept-Language header likes most; `otherwise` if it names none."""
    best, best_weight = otherwise, 0.0
    for item in (accept_language or "").split(",")[:_LANGUAGES_MAX]:
        tag, _, parameter = item.strip().partition(";")
        language = tag.strip().lower().partition("-")[0]
        weight = _weight(parameter.strip())
        if language in _BY_LANGUAGE and weight > best_weight:
            best, best_weight = language, weight
    return best


def start_page(status: EdgeStatus, bundles: Sequence[ServedBundle], language: str) -> str:
    """Return the start page: the bundles as links, then the truck's state in a teacher's words."""
    words = _BY_LANGUAGE[language]
    items = "".join(
        f'<li><a href="content/{quote(bundle.name, safe="")}/">{escape(bundle.title or bundle.name)}'
        f"<small>{escape(bundle.version)} · {escape(_size(bundle.size_bytes, words))}</small></a></li>"
        for bundle in bundles
    )
    facts = _facts(status, words)
    body = (
        f"<h1>{escape(words.classroom)} {escape(status.truck)}</h1>"
        f"<h2>{escape(words.content)}</h2>"
        + (f"<ul>{items}</ul>" if items else f"<p>{escape(words.no_content)}</p>")
        + f'<p><a href="sessions">{escape(words.lesson)}</a></p>'
        + f"<h2>{escape(words.state)}</h2><dl>"
        + "".join(
            f"<dt>{escape(fact.term)}</dt><dd{' class=bad' if fact.bad else ''}>{escape(fact.text)}</dd>"
            for fact in facts
        )
        + "</dl>"
    )
    return _page(f"{words.classroom} {status.truck}", body, words)


def folder_page(name: str, folder: OpenedFolder, language: str) -> str:
    """Return a listing of a bundle's folder that has no page of its own."""
    words = _BY_LANGUAGE[language]
    title = words.folder.format(name=name)
    # "./" in front: a name with a colon would read as a scheme.
    items = "".join(f'<li><a href="./{quote(entry)}">{escape(entry)}</a></li>' for entry in folder.entries)
    more = "" if folder.complete else f"<p>{escape(words.more)}</p>"
    return _page(
        title, f'<p><a href="../">{escape(words.up)}</a></p><h1>{escape(title)}</h1><ul>{items}</ul>{more}', words
    )


@dataclass(frozen=True, slots=True)
class _Fact:
    term: str
    text: str
    bad: bool = False


def _facts(status: EdgeStatus, words: _Words) -> list[_Fact]:
    parcels = sum(queue.parcels for queue in status.queues)
    size = sum(queue.bytes for queue in status.queues)
    behind = [version for version in status.versions if not version.current]
    synced = status.clock.state is ClockState.SYNCED
    return [
        _Fact(words.last_contact, _ago(status.last_contact_age_s, words), bad=status.last_contact_age_s is None),
        *(_link_fact(link, words) for link in status.links),
        _Fact(
            words.waiting,
            words.reports.format(count=parcels, size=_size(size, words)) if parcels else words.nothing_waiting,
        ),
        _Fact(words.updates, "; ".join(_arriving(version, words) for version in behind) or words.up_to_date),
        _Fact(words.clock, words.clock_synced if synced else words.clock_unsynced, bad=not synced),
        _Fact(words.free, _size(status.disk.free_bytes, words)),
    ]


def _link_fact(link: LinkStatus, words: _Words) -> _Fact:
    state = {True: words.usable, False: words.down, None: words.unknown}[link.usable]
    budget = words.no_cap if link.left_bytes is None else words.left.format(left=_size(link.left_bytes, words))
    return _Fact(words.link.format(name=link.name), f"{state}, {budget}", bad=link.usable is False)


def _arriving(version: VersionStatus, words: _Words) -> str:
    text = words.arriving.format(name=version.name, desired=version.desired or "")
    if version.wanted_bytes > 0:
        text += f" ({min(100, 100 * version.received_bytes // version.wanted_bytes)} %)"
    return text


def _ago(age_s: float | None, words: _Words) -> str:
    if age_s is None:
        return words.never
    return words.ago.format(age=format_age(age_s).replace("days", words.days))


def _size(count: int, words: _Words) -> str:
    text = format_bytes(count)
    if words in (_FRENCH, _PORTUGUESE):
        text = text.replace(".", ",")
    return text.replace("B", "o") if words is _FRENCH else text


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0


def _page(title: str, body: str, words: _Words) -> str:
    return (
        f'<!DOCTYPE html><html lang="{words.language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )
