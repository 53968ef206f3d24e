"""report.md: the report without figures, for a repository, an e-mail or an issue."""

from __future__ import annotations

from collections.abc import Sequence

from vitrim.report.answers import Answer, shared_notes
from vitrim.report.curves import available, curve
from vitrim.report.formatting import capitalised, fixed
from vitrim.report.paper import comparison
from vitrim.report.rule_comparison import rules_table
from vitrim.report.run import NetworkRun, Run
from vitrim.report.sentences import explain_flags, rule, setting
from vitrim.report.several_runs import NamedRun, answers_table, data_tables
from vitrim.report.study_table import results_table
from vitrim.report.tables import markdown as table_markdown
from vitrim.report.tables import markdown_table

SPECIAL = "\\`*_{}[]<>#|&!~"


def escape(text: str) -> str:
    """Escape text so that Markdown shows it unchanged, on one line."""
    return "".join(f"\\{character}" if character in SPECIAL else character for character in " ".join(text.split()))


def page(run: Run, answers: list[Answer]) -> str:
    """Return the text of report.md."""
    parts = [f"# vitrim study: {escape(run.name)}", escape(setting(run))]
    parts += [_answer(answer) for answer in answers]
    parts += [f"> {escape(note)}" for note in shared_notes(answers)]
    parts += ["## Every network", table_markdown(results_table(run)).rstrip("\n")]
    paper = comparison(run)
    if paper is not None:
        parts += ["## Comparison with the paper", table_markdown(paper).rstrip("\n")]
    rules = rules_table(run)
    if rules is not None:
        parts += ["## Chosen depth and needed depth", table_markdown(rules).rstrip("\n")]
    parts.append("## Attention by block")
    parts.append(
        "Means over training cases, for the head-averaged attention. In brackets: the same network before training."
    )
    parts += [text for network in run.networks if (text := _measures(network))]
    if run.config:
        parts += ["## Configuration", _fenced(run.config, "yaml")]
    if run.versions:
        parts += ["## Versions", "\n".join(f"- {escape(str(k))}: {escape(str(v))}" for k, v in run.versions.items())]
    parts.append("See `report.html` for figures.")
    return "\n\n".join(parts) + "\n"


def comparison_markdown(runs: Sequence[NamedRun]) -> str:
    """Return the text of comparison.md: the answers of several studies, and their tables by data set."""
    parts = [f"# {len(runs)} studies compared", table_markdown(answers_table(runs)).rstrip("\n")]
    for title, table in data_tables(runs):
        parts += [f"## {escape(title)}", table_markdown(table).rstrip("\n")]
    parts += ["## Studies", "\n".join(f"- {escape(one.label)}: {escape(setting(one.run))}" for one in runs)]
    return "\n\n".join(parts) + "\n"


def _answer(answer: Answer) -> str:
    shown = f"{answer.verdict}, provisional" if answer.provisional else answer.verdict
    if answer.loss:
        shown += f"; {answer.loss}"
    rest = " ".join(part for part in (answer.claim, answer.costs, answer.fewer, answer.saves) if part)
    return f"**{escape(answer.network.title)}: {escape(answer.recommended)}** ({escape(shown)}). {escape(rest)}"


def _measures(network: NetworkRun) -> str:
    if network.profile is None:
        return ""
    measures = available(network.profile)
    curves = {m.name: (curve(network.profile, m.name), curve(network.untrained, m.name)) for m in measures}
    shown = [m for m in measures if curves[m.name][0] is not None]
    blocks = sorted({block for m in shown for block in curves[m.name][0].blocks})  # type: ignore[union-attr]
    rows = []
    for block in blocks:
        cells = []
        for m in shown:
            trained, untrained = (dict(c.points) if c else {} for c in curves[m.name])
            text = fixed(trained.get(block), 3)
            cells.append(f"{text} ({fixed(untrained[block], 3)})" if block in untrained else text)
        rows.append([str(block), *cells])
    heading = ["Block", *(capitalised(m.label) for m in shown)]
    table = markdown_table(heading, rows, [True] * len(heading))
    said = []
    if network.rule is not None:
        said = [escape(f"{rule(network.rule)} Here it gives {network.rule.depth}.")]
        said += [f"> {escape(warning)}" for warning in explain_flags(network, network.rule)]
    return "\n\n".join([f"### {escape(network.title)}", *said, table])


def _fenced(text: str, language: str) -> str:
    """Return a code block with a fence that does not occur in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
