# SPDX-License-Identifier: Apache-2.0
"""The dashboard on Textual: a line on top, a table for each tab, keys at the bottom.

Frames come from a feed; what is shown may stand still (frozen), or be an earlier one, while the feed goes on. Tables
keep cursor and scroll position when their cells change.
"""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Input, Static, TabbedContent, TabPane

from halo_mp.dashboard import tables
from halo_mp.dashboard.feed import FRAME_S, KEPT, SAMPLE_S, Asked, Feed, Frame
from halo_mp.dashboard.plain import WIDE
from halo_mp.dashboard.problems import problems
from halo_mp.dashboard.tables import Column, Table
from halo_mp.errors import HaloError
from halo_mp.supervisor.status_text import duration

MAKERS: dict[str, tuple[str, Callable[[Sequence[Frame]], Table]]] = {
    "now": ("Now", lambda frames: tables.now(frames[-1])),
    "ports": ("Ports", tables.ports),
    "workers": ("Workers", lambda frames: tables.workers(frames[-1])),
    "drops": ("Drops", lambda frames: tables.drops(frames[-1])),
    "processes": ("Procs", lambda frames: tables.processes(frames[-1])),
    "neighbors": ("Neigh", lambda frames: tables.neighbors(frames[-1])),
    "routes": ("Routes", lambda frames: tables.routes(frames[-1])),
    "hooks": ("Hooks", lambda frames: tables.hooks(frames[-1])),
    "logs": ("Logs", lambda frames: tables.logs(frames[-1])),
}
_GAP = "  "  # between columns
FIRST = "ports"  # tab that is shown first
PROBLEMS = 3  # shown above the tabs at most
ASKED = {"neighbors", "routes"}  # tabs for which the supervisor is asked, while they are shown


@dataclass(slots=True)
class Order:
    """By which column a tab is sorted; None: as it comes."""

    column: int | None = None
    reverse: bool = False


class Dashboard(App[None]):
    """One instance. `ask` returns what only the supervisor knows; it is called in a thread of its own."""

    TITLE = "halo-mp"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #top { height: 1; background: $primary; color: $text; text-style: bold; }
    #top.frozen { background: $warning; color: $text; }
    #top.unwell { background: $error; color: $text; }
    #problems { height: auto; color: $text; background: $error-darken-2; display: none; }
    #note { height: auto; color: $text-muted; display: none; }
    #filter { display: none; height: 1; border: none; padding: 0; }
    Screen { overflow: hidden; }
    #tabs, ContentSwitcher { height: 1fr; }
    Tab { padding: 0 2 0 0; }
    Tab:first-of-type { padding: 0 2 0 1; }
    Tab:last-of-type { padding: 0; }
    TabPane { padding: 0; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("s", "sort", "Sort"),
        Binding("r", "reverse", "Reverse"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("space", "freeze", "Freeze"),
        Binding("comma", "step(-1)", "Back", key_display=","),
        Binding("full_stop", "step(1)", "Forward", key_display="."),
        Binding("less_than_sign", "step(-10)", "Ten back", show=False),
        Binding("greater_than_sign", "step(10)", "Ten forward", show=False),
        Binding("escape", "live", "Live"),
        *(
            Binding(str(at), f"show('{name}')", title, show=False)
            for at, (name, (title, _)) in enumerate(MAKERS.items())
        ),
    ]

    def __init__(
        self, feed: Feed, ask: Callable[[], Asked], *, ticking: bool = True, server: int | None = None
    ) -> None:
        """Show what a feed has. Without `ticking` somebody else calls `take`: a test, or a picture.

        `server` is the pid of who shows it to a browser: when that is our parent no more, nobody sees us.
        """
        super().__init__()
        self._server = server
        self.feed = feed
        self._ask = ask
        self._ticking = ticking
        self._asking = False
        self._gone: tuple[str, float] | None = None  # why nothing can be read, and since when
        self.at: int | None = None
        """Which frame is shown, counted from the first of all; None: the latest."""
        self._taken = 0  # frames that there have been
        self.orders = {name: Order() for name in MAKERS}
        self.filters = dict.fromkeys(MAKERS, "")
        self.drawn: Table | None = None
        """The table on the screen."""
        self._state: tuple[Table, list[tuple[str, int]], str] | None = None
        self._columns: dict[str, list[tuple[str, int]]] = {}  # titles and widths

    # ---- what there is

    def compose(self) -> ComposeResult:
        """Make the widgets."""
        yield Static("", id="top", markup=False)
        yield Static("", id="problems", markup=False)
        with TabbedContent(id="tabs", initial=FIRST):
            for at, (name, (title, _)) in enumerate(MAKERS.items()):
                with TabPane(f"{at} {title}", id=name):
                    yield DataTable[Text](
                        id=f"table-{name}", cursor_type="row", zebra_stripes=True, cell_padding=0
                    )
        yield Static("", id="note", markup=False)
        yield Input(placeholder="rows that have this text; Enter keeps it, Escape ends it", id="filter")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin."""
        self.take()
        if self._ticking:
            self.set_interval(SAMPLE_S, self._sample)
            self.set_interval(FRAME_S, self.take)
        self.query_one(f"#table-{FIRST}", DataTable).focus()

    def take(self) -> None:
        """Take a frame, and show it if nothing else is shown.

        An instance that has gone is waited for: what it did last is what its operator wants to see now.
        """
        if self._server is not None and os.getppid() != self._server:
            self.exit()
            return
        try:
            self.feed.frame(lines=self.tab == "logs" or not self._ticking)
        except HaloError as error:
            self._gone = str(error), self._gone[1] if self._gone else time.monotonic()
            self.show_frame()
            return
        self._gone = None
        self._taken += 1
        if self._ticking and self.tab in ASKED and self.at is None and not self._asking:
            self._asking = True
            self.run_worker(self._ask_in_thread, thread=True)
        self.show_frame()

    def _sample(self) -> None:
        try:
            self.feed.sample()
        except HaloError:
            pass  # the next frame says so

    def _ask_in_thread(self) -> None:
        found = self._ask()
        self.call_from_thread(self._answered, found)

    def _answered(self, found: Asked) -> None:
        self._asking = False
        if found.problem:  # what it said last is better than nothing
            found = replace(self.feed.asked, problem=found.problem)
        self.feed.asked = found
        if self.at is None:
            self.feed.frames[-1] = replace(self.feed.frames[-1], asked=found)
            self.show_frame()

    # ---- what is shown

    @property
    def tab(self) -> str:
        """The tab that is shown."""
        return self.query_one(TabbedContent).active or FIRST

    @property
    def behind(self) -> int:
        """By how many frames what is shown is older than the latest; at most as many as are kept."""
        if self.at is None:
            return 0
        return min(self._taken - 1 - self.at, len(self.feed.frames) - 1)

    def shown_table(self) -> Table:
        """Return the table of this tab as it is to be shown."""
        frames = list(self.feed.frames)
        name = self.tab
        made = MAKERS[name][1](frames[: len(frames) - self.behind])
        made = made.shown(wide=self.size.width >= WIDE)
        if self.filters[name]:
            made = made.filtered(self.filters[name])
        order = self.orders[name]
        if order.column is not None and order.column < len(made.columns):
            made = made.ordered(order.column, reverse=order.reverse)
        elif order.reverse:
            rows = tuple(reversed(made.rows))
            made = Table(made.name, made.title, made.columns, rows, made.note)
        return made

    def show_frame(self) -> None:
        """Draw what is to be shown."""
        if not self.feed.frames:
            return
        frame = self.feed.frames[-1 - self.behind]
        top = self.query_one("#top", Static)
        mark = "" if self.at is None else f"FROZEN, {self.behind} s ago · "
        status = frame.now.status
        is_well = status.is_well and status.is_supervised and self._gone is None
        top.update(self._gone_mark() + mark + tables.headline(frame))
        top.set_class(self.at is not None, "frozen")
        top.set_class(self.at is None and not is_well, "unwell")
        said = self.query_one("#problems", Static)
        lines = self._problem_lines(frame)
        said.update("\n".join(lines))
        said.display = bool(lines)
        self._draw(self.shown_table())

    def _gone_mark(self) -> str:
        if self._gone is None:
            return ""
        return f"GONE {duration(time.monotonic() - self._gone[1])} ago; this was its last: "

    def _problem_lines(self, frame: Frame) -> list[str]:
        """Return what is to be seen from each tab: why the instance is gone, or the worst that is wrong."""
        if self._gone is not None:
            return textwrap.wrap(self._gone[0], self.size.width)
        if self.tab == "now":
            return []
        found = [problem for problem in problems(frame) if not problem.is_notice]
        lines = [f"{problem.where}: {problem.what}" for problem in found]
        if len(lines) > PROBLEMS:
            lines[PROBLEMS - 1 :] = [f"and {len(lines) - PROBLEMS + 1} problems more: 0 shows all"]
        return [line if len(line) <= self.size.width else f"{line[: self.size.width - 1]}…" for line in lines]

    def _draw(self, made: Table) -> None:
        """Draw a table, each row as one cell: the library takes as long for a cell as for a row."""
        columns, wanted = self._columns_for(made), self.filters[made.name]
        state = (made, columns, wanted)
        if state == self._state:  # of an instance that is idle
            return
        self._state = state
        widget = self.query_one(f"#table-{made.name}", DataTable)
        x, y, row = widget.scroll_x, widget.scroll_y, widget.cursor_row
        if self._columns.get(made.name) != columns:
            widget.clear(columns=True)
            titles = (title for title, _ in columns)
            head = _line(titles, made.columns, columns)
            widget.add_column(head, width=cell_len(head))
            self._columns[made.name] = columns
        else:
            widget.clear()
        for cells in made.rows:
            line = _line((cell.text for cell in cells), made.columns, columns)
            widget.add_row(Text(line, no_wrap=True, end=""))
        widget.move_cursor(row=min(row, len(made.rows) - 1), animate=False, scroll=False)
        widget.scroll_to(x, y, animate=False)
        note = " ".join(filter(None, (made.note, f"Filter: {wanted}" if wanted else "")))
        said = self.query_one("#note", Static)
        said.update(note)
        said.display = bool(note)
        self.drawn = made

    def _columns_for(self, made: Table) -> list[tuple[str, int]]:
        """Return titles and widths, which do not shrink while figures change.

        The library would measure when it has time, and cut what is longer until then.
        """
        titles, before = self._titles(made), self._columns.get(made.name, [])
        same = [title for title, _ in before] == list(titles)
        least = [width for _, width in before] if same else [0] * len(titles)
        return [
            (title, max([least[at], cell_len(title), *(cell_len(row[at].text) for row in made.rows)]))
            for at, title in enumerate(titles)
        ]

    def _titles(self, made: Table) -> tuple[str, ...]:
        order = self.orders[made.name]
        arrow = "▼" if order.reverse else "▲"
        return tuple(
            f"{column.title} {arrow}" if at == order.column else column.title
            for at, column in enumerate(made.columns)
        )

    # ---- keys

    def action_show(self, name: str) -> None:
        """Show a tab."""
        self.query_one(TabbedContent).active = name
        self.query_one(f"#table-{name}", DataTable).focus()

    def on_tabbed_content_tab_activated(self) -> None:
        """Fill the tab that is shown now."""
        if self._ticking and self.tab in ASKED | {"logs"} and self._taken:
            self.take()
        else:
            self.show_frame()

    def on_resize(self, _: events.Resize) -> None:
        """Show as many columns as there is room for."""
        self.show_frame()

    def action_sort(self) -> None:
        """Sort by the next column; behind the last one, not at all."""
        order, count = self.orders[self.tab], len(self.shown_table().columns)
        following = 0 if order.column is None else order.column + 1
        order.column = following if following < count else None
        self.show_frame()

    def on_click(self, event: events.Click) -> None:
        """Sort by the column whose title was clicked, and the other way when it is clicked again."""
        if not isinstance(event.widget, DataTable) or event.style.meta.get("row") != -1:
            return
        place, order = event.x + event.widget.scroll_x, self.orders[self.tab]
        for at, (_, width) in enumerate(self._columns[self.tab]):
            place -= width + len(_GAP)
            if place < 0:
                order.reverse = order.column == at and not order.reverse
                order.column = at
                self.show_frame()
                return

    def action_reverse(self) -> None:
        """Turn the order around."""
        self.orders[self.tab].reverse = not self.orders[self.tab].reverse
        self.show_frame()

    def action_filter(self) -> None:
        """Ask for a text that rows must have."""
        box = self.query_one("#filter", Input)
        box.value = self.filters[self.tab]
        box.display = True
        box.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        if event.input.display:
            self.filters[self.tab] = event.value
            self.show_frame()

    def on_input_submitted(self) -> None:
        """Keep the filter."""
        self._close_filter()

    def _close_filter(self) -> None:
        self.query_one("#filter", Input).display = False
        self.query_one(f"#table-{self.tab}", DataTable).focus()

    def action_freeze(self) -> None:
        """Stand still, or go on."""
        self.at = self._taken - 1 if self.at is None else None
        self.show_frame()

    def action_step(self, frames: int) -> None:
        """Show an earlier frame, or a later one, and stand still there."""
        behind = min(max(self.behind - frames, 0), len(self.feed.frames) - 1, KEPT - 1)
        self.at = self._taken - 1 - behind
        self.show_frame()

    def action_live(self) -> None:
        """Show the latest, and all rows."""
        box = self.query_one("#filter", Input)
        if box.display:
            self.filters[self.tab] = ""
            self._close_filter()
        self.at = None
        self.show_frame()


def _line(texts: Iterable[str], columns: Sequence[Column], widths: Sequence[tuple[str, int]]) -> str:
    """Return a row as it is drawn, with a blank at both ends."""
    parts = []
    for text, column, (_, width) in zip(texts, columns, widths, strict=True):
        blanks = " " * (width - cell_len(text))
        parts.append(blanks + text if column.right else text + blanks)
    return f" {_GAP.join(parts)} "
