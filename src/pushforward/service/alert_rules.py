"""Rules and receivers of alerts, from a TOML file, and what a rule says at present.

::

    [[receiver]]
    name = "operators"
    url = "https://alerts.example/hook"
    secret_file = "hook.secret"

    [[rule]]
    name = "too many alarms"
    kind = "rate"          # alarm, rate, drift or silent
    minutes = 10
    receivers = ["operators"]
"""

from __future__ import annotations

import math
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, func, select

from pushforward.detection import realized_interval
from pushforward.errors import ConfigError, StorageError
from pushforward.service.store import tables

__all__ = ["AHEAD", "Firing", "ModelFacts", "Receiver", "Rule", "check_rule", "read_alert_file"]

KINDS = ("alarm", "rate", "drift", "silent")
_MOST_ALARMS = 20  # alarms that one alert of the kind "alarm" names
AHEAD = 60.0
"""Seconds; what is further in the future was written before the clock was set back."""


@dataclass(frozen=True)
class Receiver:
    """Where alerts are sent.

    Attributes:
        name: of the receiver.
        url: http or https.
        secret: with which bodies are signed: the bytes of its file without white space at the beginning and the end; None to send
            them unsigned.
    """

    name: str
    url: str
    secret: bytes | None

    def __repr__(self) -> str:
        return f"Receiver({self.name})"  # neither the secret nor what a URL may contain


@dataclass(frozen=True)
class Rule:
    """When an alert fires.

    Attributes:
        name: becomes the label ``alertname``.
        kind: "alarm": any alarm in the last ``minutes``. "rate": more alarms in them than theory gives with ``probability``.
            "drift": the drift martingale reached its bound; the alert ends when the monitor is restarted. "silent": no event
            in the last ``minutes``.
        minutes: of the window. Rows are counted by the minute for "rate", so its window begins with a whole minute (UTC): it
            has at least ``minutes``, and less than one minute more.
        model: only for this model; all by default.
        severity: the label ``severity``.
        receivers: names; all by default.
        probability: of the band of the kind "rate".
        repeat: minutes after which an alert that still fires is sent again.
    """

    name: str
    kind: str
    minutes: float = 10.0
    model: str | None = None
    severity: str = "warning"
    receivers: tuple[str, ...] = ()
    probability: float = 0.999
    repeat: float = 240.0


@dataclass(frozen=True)
class ModelFacts:
    """What a rule needs to know about the active version of a model. ``quiet``: its guard raises no alarm."""

    name: str
    version: str
    alpha: float
    guarantee: Any
    delta: float
    calibration_rows: int
    since: float
    trimmed: int = 0
    quiet: bool = False


@dataclass(frozen=True)
class Firing:
    """A rule that fires for a model: the labels name it, the annotations say what was found."""

    labels: dict[str, str]
    annotations: dict[str, str]


def read_alert_file(path: str | Path) -> tuple[list[Receiver], list[Rule]]:
    """Receivers and rules.

    White space at the beginning and the end of a secret file, such as the last line break, is not part of the secret.

    Raises:
        StorageError: if the file cannot be read.
        ConfigError: for a file with other content.
    """
    file = Path(path)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"cannot read the alert file {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise StorageError(
            f"cannot read the alert file {path}, which is not UTF-8: write it in this encoding."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the alert file {path} is not TOML: {error}") from None
    if set(content) - {"receiver", "rule"}:
        raise ConfigError(f"the alert file {path} must consist of [[receiver]] and [[rule]] tables.")
    for key in content:
        found = content[key]
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise ConfigError(f"each {key} of the alert file {path} must be a table: begin it with the line [[{key}]].")
    receivers = [_receiver(item, file) for item in content.get("receiver", [])]
    names = [receiver.name for receiver in receivers]
    if len(set(names)) < len(names):
        raise ConfigError(f"two receivers of {path} have the same name.")
    rules = [_rule(item, names, file) for item in content.get("rule", [])]
    if len({rule.name for rule in rules}) < len(rules):
        raise ConfigError(f"two rules of {path} have the same name.")
    return receivers, rules


def _receiver(item: dict[str, Any], file: Path) -> Receiver:
    name, url = item.get("name"), item.get("url")
    if not isinstance(name, str) or not 0 < len(name) <= 64 or not isinstance(url, str):
        raise ConfigError(f"a receiver of {file} needs a name and a url.")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  a port that is none raises here
    except ValueError as error:  # the URL may have a secret, so it is not shown
        raise ConfigError(f"the url of the receiver {name!r} of {file} cannot be read: {error}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"the url of the receiver {name!r} of {file} must begin with http:// or https://.")
    if set(item) - {"name", "url", "secret_file"}:
        raise ConfigError(f"the receiver {name!r} of {file} has an unknown key; it may have name, url and secret_file.")
    if item.get("secret_file") is None:
        return Receiver(name, url, None)
    secret = file.parent / str(item["secret_file"])
    try:
        content = secret.read_bytes().strip()
    except OSError as error:
        raise StorageError(f"cannot read the secret of the receiver {name!r}: {error}") from error
    if len(content) < 16:
        raise ConfigError(f"the secret of the receiver {name!r} has fewer than 16 bytes: use a longer one.")
    return Receiver(name, url, content)


def _rule(item: dict[str, Any], receivers: list[str], file: Path) -> Rule:
    try:
        rule = Rule(**{**item, "receivers": tuple(item.get("receivers", receivers))})
    except TypeError:
        raise ConfigError(
            f"a rule of {file} needs name and kind, and may have minutes, model, severity, receivers, probability and repeat."
        ) from None
    numbers = (rule.minutes, rule.repeat, rule.probability)
    good = all(type(n) in (int, float) and math.isfinite(n) and n > 0 for n in numbers) and rule.probability < 1
    texts = all(isinstance(t, str) and len(t) <= 64 for t in (rule.name, rule.severity, rule.model or ""))
    of = f"the rule {str(rule.name)[:64]!r} of {file}"
    if not isinstance(item.get("receivers", []), list):
        raise ConfigError(f'{of} must have a list of names as receivers, such as receivers = ["operators"].')
    if rule.kind not in KINDS:
        raise ConfigError(f"{of} has the kind {str(rule.kind)[:64]!r}; it must be one of {', '.join(KINDS)}.")
    if not good:
        raise ConfigError(
            f"{of} must have numbers above 0 as minutes, repeat and probability, and a probability below 1; got {numbers}."
        )
    if rule.kind == "rate" and rule.minutes < 1:
        raise ConfigError(
            f"{of} has minutes = {rule.minutes:g}, and rows are counted by the minute: give at least 1 for the kind rate."
        )
    if not texts or not rule.name:
        raise ConfigError(f"{of} must have a name, severity and model of at most 64 characters.")
    unknown = [name for name in rule.receivers if name not in receivers]
    if unknown:
        raise ConfigError(
            f"the rule {rule.name!r} of {file} names the receiver {str(unknown[0])[:64]!r}, which does not exist."
        )
    return rule


def check_rule(connection: Connection, rule: Rule, model: ModelFacts, now: float, url: str) -> Firing | None:
    """What a rule says of a model at present; None if it is quiet.

    Args:
        connection: of the store.
        rule: to check.
        model: its active version.
        now: seconds since 1970.
        url: of the page, for links; may be empty.
    """
    labels = {"alertname": rule.name, "kind": rule.kind, "severity": rule.severity, "model_name": model.name,
              "model_version": model.version}  # fmt: skip
    found = {"alarm": _alarm, "rate": _rate, "drift": _drift, "silent": _silent}[rule.kind](
        connection, rule, model, now
    )
    if found is None:
        return None
    summary, extra = found
    annotations = {"summary": summary, **extra}
    if url:
        annotations["page"] = f"{url}/?model={model.name}"
        if "event" in extra:
            annotations["page"] = f"{url}/event/{extra['event']}"
    return Firing(labels, annotations)


def _window(connection: Connection, rule: Rule, model: ModelFacts, now: float) -> tuple[int, int, float]:
    """Rows and alarms of the window, and its length in minutes.

    Counts are of whole minutes, so the window begins with the minute in which ``rule.minutes`` ago lies: without it, a window
    of one minute would be empty whenever a minute begins.
    """
    column, first = tables.minutes.c, int((now - 60 * rule.minutes) // 60)
    query = select(func.sum(column.rows), func.sum(column.alarms)).where(
        column.model == model.name,
        column.version == model.version,
        column.minute >= first,
        column.minute <= int((now + AHEAD) // 60),
    )
    rows, alarms = connection.execute(query).one()
    return int(rows or 0), int(alarms or 0), now / 60 - first


def _alarm(connection: Connection, rule: Rule, model: ModelFacts, now: float) -> Any:
    event = tables.events.c
    query = (
        select(event.id, event.p_value, event.reasons)
        .where(event.model == model.name, event.version == model.version, event.alarm.is_(True))
        .where(event.time > now - 60 * rule.minutes, event.time <= now + AHEAD)
        .order_by(event.time.desc(), event.seq.desc())
        .limit(_MOST_ALARMS)
    )
    rows = connection.execute(query).all()
    if not rows:
        return None
    count = f"{len(rows)}" if len(rows) < _MOST_ALARMS else f"{_MOST_ALARMS} or more"
    text = f"{count} alarm{'' if len(rows) == 1 else 's'} in the last {rule.minutes:g} minutes"
    return f"{text}; the last has p-value {rows[0][1]:.3g}.", {"event": rows[0][0]}


def _rate(connection: Connection, rule: Rule, model: ModelFacts, now: float) -> Any:
    rows, alarms, minutes = _window(connection, rule, model, now)
    if not rows or model.quiet:
        return None
    # Alarms of normal rows are beta-binomial given the number of calibration rows, so one bound fits few and many rows.
    level = 2 * rule.probability - 1
    _, most = realized_interval(
        model.calibration_rows,
        min(rows, 100_000),
        model.alpha,
        max(level, 1e-6),
        model.guarantee,
        model.delta,
        model.trimmed,
    )
    if alarms / rows <= most:  # most * rows can round to less than the number of alarms that it stands for
        return None
    return (
        f"{alarms} alarms among {rows} rows ({alarms / rows:.2%}) in the last {minutes:.1f} minutes; normal rows have more "
        f"than {most:.2%} with a probability of at most {1 - rule.probability:.2g}.",
        {},
    )


def _drift(connection: Connection, rule: Rule, model: ModelFacts, now: float) -> Any:
    column = tables.monitors.c
    chosen = (column.model == model.name) & (column.version == model.version)
    row = connection.execute(select(column.alarm_at, column.log_evidence).where(chosen)).first()
    if row is None or row[0] is None:
        return None
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(row[0]))
    return f"the stream is not like the calibration rows, since {when}.", {}


def _silent(connection: Connection, rule: Rule, model: ModelFacts, now: float) -> Any:
    column = tables.events.c
    of_model = select(column.time).where(column.model == model.name, column.time <= now + AHEAD)
    query = of_model.order_by(column.seq.desc()).limit(1)
    last = connection.execute(query).scalar() or model.since
    if now - last < 60 * rule.minutes:
        return None
    return f"no rows for {(now - last) / 60:.0f} minutes.", {}
