"""`edge-agent status` in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def status_lines(answer: Mapping[str, Any]) -> Iterator[str]:
    """Say in plain words what an agent wrote; one of an earlier version wrote less."""
    from edge_agent.examples.texts.told import told_lines
    from edge_agent.robot.pause import WITHOUT_REASON

    name = answer["name"]  # known since the server's first answer after the start
    if name:
        yield f"robot    {name} at site {answer['site']}"
    else:
        yield f"robot    {'not admitted yet' if answer['state'] == 'refused' else 'not known yet'}"
    yield f"state    {answer['state']} {answer['reason']}".rstrip()
    if server := answer.get("server"):
        yield f"server   {server}"
    yield from _warnings(answer)
    if standing := answer.get("standing"):
        yield f"standing {standing} {answer['standing_reason']}".rstrip()
    if reason := answer["paused"]:
        given = "" if reason == WITHOUT_REASON else f"{reason}; "
        yield f"paused   {given}no training until `edge-agent resume`"
    yield from _model(answer)
    yield from _signatures(answer.get("signatures") or {})
    yield f"memory   {answer['idle_mb']:.0f} MB idle, {answer['peak_mb']:.0f} MB peak"
    if ingest := answer.get("ingest"):
        yield from _store(ingest)
    yield from told_lines(answer.get("texts") or {})
    yield from _labels(answer.get("labels") or {})
    yield from _teachers(answer.get("teachers") or ())
    yield from _rounds(answer)
    if error := answer.get("last_error"):
        yield f"error    the last one, {answer['last_error_at']}: {error}"


def _warnings(answer: Mapping[str, Any]) -> Iterator[str]:
    from edge_agent.agent.status import tell_moved

    moved = tell_moved(answer["site"], answer.get("models_site", ""))
    for warning in filter(None, (answer.get("warning"), moved)):
        yield f"WARNING  {warning}"


def _model(answer: Mapping[str, Any]) -> Iterator[str]:
    from fleet_model.litert.runtime import RuntimeChoice
    from fleet_model.personal.choice import PersonalChoice
    from fleet_model.protocol.trial import TrialOutcome

    version = answer["active_version"]
    yield f"version  {'none yet' if version is None else version}"
    if runtime := answer.get("runtime"):
        yield f"runs by  {RuntimeChoice.model_validate(runtime).words}"
    if personal := answer.get("personal"):
        yield f"runs     {PersonalChoice.model_validate(personal).words}"
    words = ""
    if trial := answer.get("trial"):
        words = TrialOutcome.model_validate(trial).words
        yield f"trial    {words}"
    if (reason := answer.get("not_installed")) and reason != words:
        yield f"newest   not installed: {reason}"


def _signatures(signed: Mapping[str, Any]) -> Iterator[str]:
    """Say by which keys models are verified; an agent of an earlier version told nothing."""
    if not signed:
        return
    site = f", site {signed['site']}" if signed.get("site") else ""
    where = f"channel {signed.get('channel', '')}{site}, models from {signed.get('from', '')}"
    if "root" not in signed:
        yield f"signed   {where}: no key is trusted yet, what the server offers is not verified"
    else:
        keys = f"{signed['needed']} of {len(signed['keys'])} keys ({', '.join(signed['keys'])})"
        yield f"signed   {where}"
        since = _when(signed.get("since"))
        yield f"trust    root {signed['root']}, signed by {keys}, since {since}"
        yield (
            f"verified {_when(signed.get('verified_at'))}; counts until "
            f"{_when(signed.get('until'))}, then no new model is taken before a new signature"
        )
    if rollout := signed.get("rollout"):
        yield f"rollout  {rollout}"
    if refused := signed.get("refused"):
        yield f"refused  the last one, {_when(signed.get('refused_at'))}: {refused}"


def _when(time: Any) -> str:
    return str(time)[:16].replace("T", " ") + " UTC" if time else "never"


def _store(ingest: Mapping[str, Any]) -> Iterator[str]:
    from edge_agent.examples.left_out import tell

    yield (
        f"store    {ingest['examples']} examples ({ingest['megabytes']:.0f} MB) from "
        f"{ingest['recordings']} bags; {ingest['unreadable']} bags cannot be read"
    )
    if dropped := ingest.get("dropped"):
        yield f"left out {tell(dropped)}"
    if error := ingest.get("error"):
        yield f"bag      not added, the last one: {error}"


def _labels(done: Mapping[str, Any]) -> Iterator[str]:
    from edge_agent.labeling.answer import in_words

    if done.get("last"):
        who, last = ", ".join(done["by"]), _when(done["last"])
        yield f"labels   {in_words(done)}; by {who}, the last {last}"


def _teachers(teachers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    from edge_agent.examples.taught import in_words

    for one in teachers:
        who = f"{one['teacher']} version {one['version']}"
        yield f"teacher  {who}, {_when(one['at'])}: {in_words(one)}"


def _rounds(answer: Mapping[str, Any]) -> Iterator[str]:
    from fleet_model.protocol.example_counts import is_count
    from fleet_model.protocol.pseudo_counts import in_words

    rounds = answer["rounds"]
    yield f"rounds   {len(rounds)}"
    if notice := answer.get("last_notice"):
        yield f"notice   {notice}"
    if reason := answer.get("last_failure"):
        yield f"request  last one: {reason}"
    if measured := answer.get("evaluation"):
        known = ("version", "num_examples")
        values = {k: v for k, v in measured.items() if k not in known and not is_count(k)}
        scores = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        yield (
            f"measured version {measured['version']}: {scores} "
            f"({measured['num_examples']} held-out examples{_left_out(measured)})"
        )
    if told := answer.get("sums"):
        yield f"sums     of {told['num_examples']} examples were told{_left_out(told)}"
    if rounds:
        yield from _last_round(rounds[-1])
    if guessed := answer.get("pseudo_labels"):
        yield f"pseudo   {in_words(guessed)}"


def _left_out(metrics: Mapping[str, Any]) -> str:
    from fleet_model.protocol.example_counts import counts_of, tell_left_out

    left_out = tell_left_out(counts_of(0, metrics).left_out)
    return f"; left out: {left_out}" if left_out else ""


def _last_round(record: Mapping[str, Any]) -> Iterator[str]:
    from fleet_model.measures import changes
    from fleet_model.protocol.example_counts import CONCERNS, counts_of, tell_taught

    metrics = record["metrics"]
    if "bytes_up" in record:
        codec = record.get("codec", "float32")
        up, down = record["bytes_up"] / 1e3, record["bytes_down"] / 1e3
        yield f"traffic  {up:.1f} kB sent ({codec}), {down:.1f} kB received in the last round"
    counts = counts_of(record.get("num_examples", 0), metrics)
    held_out = "" if counts.held_out is None else f", {counts.held_out} held out"
    left_out = _left_out(metrics)
    more = f"{left_out} (`edge-agent doctor` says which)" if left_out else ""
    yield f"examples {counts.training} to train on{held_out}{more}"
    if taught := tell_taught(metrics):
        yield f"taught   {taught}"
    for concern, numbers in counts.concerns.items():
        yield f"WARNING  {CONCERNS[concern]}: {numbers}"
    for name, change in changes(metrics).items():
        yield (
            f"{name:8} {change.before:.3f} before its own training, {change.after:.3f} after "
            f"(last round, of {counts.held_out} held-out examples)"
        )
