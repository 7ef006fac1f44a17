"""The rules' vocabulary: how English asks for numbers.

What comes in: a question as text. What goes out: its words, stemmed, and tables of what words mean. It does not know
columns or files, and it does not guess: a word that stands in no table is unknown.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .query import Aggregate, Unit

__all__ = ("Word", "phrase", "same_meaning", "stem", "stems", "words_of")


class Word(NamedTuple):
    """One word of a question: as written, in lower case, its stem, and whether it stood in quotes, then whole."""

    text: str
    lower: str
    stem: str
    quoted: bool = False


_WORD: Final = re.compile(
    r"""["“”](?P<double>[^"“”]+)["“”] | (?<!\w)['\u2018](?P<single>[^'’]+)['’](?!\w) | `(?P<back>[^`]+)`
    | (?P<word>
        \d{4}-\d\d(?:-\d\d)? (?![\d-])                  # an ISO date or month
      | \d+(?:[.,]\d+)*(?:st|nd|rd|th)? (?![^\W\d_])    # a number
      | [^\W_]+(?:['’][^\W\d_]+)?                       # a word; an underscore parts two
      | [<>]=? | [=%]
    )""",
    re.VERBOSE,
)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_POSSESSIVE: Final = re.compile(r"['’]s$")
_ORDINAL: Final = re.compile(r"^(\d+)(?:st|nd|rd|th)$")


def words_of(text: str) -> list[Word]:
    """The words of a question; names such as `unit_price` and `unitPrice` fall into their parts."""
    found: list[Word] = []
    for match in _WORD.finditer(text):
        quoted = match["double"] or match["single"] or match["back"]
        if quoted:
            found.append(Word(quoted, quoted.casefold(), "", quoted=True))
            continue
        whole = _ORDINAL.sub(r"\1", _POSSESSIVE.sub("", match["word"]))
        found.extend(Word(part, part.lower(), stem(part)) for part in _CAMEL.split(whole))
    return found


_IRREGULAR: Final = {"people": "person", "men": "man", "women": "woman", "children": "child", "series": "series"}


def stem(word: str) -> str:
    """The word in lower case and singular, as far as its ending tells."""
    word = word.lower()
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def stems(name: str) -> tuple[str, ...]:
    """The stems of a column's name."""
    return tuple(word.stem or word.lower for word in words_of(re.sub(r"[\"'`“”\u2018’]", " ", name)))


def phrase(text: str) -> tuple[str, ...]:
    """A table's key from words in plain writing."""
    return tuple(text.split())


# --- meaning of nouns -------------------------------------------------------------------------------------------------
_SAME: Final = (
    ("revenue", "sale", "turnover", "income", "earning", "proceed"),
    ("quantity", "qty", "unit"),
    ("customer", "client", "buyer", "shopper"),
    ("product", "item", "article", "sku", "good"),
    ("country", "nation", "land"),
    ("region", "area", "territory", "zone"),
    ("date", "day", "time", "timestamp"),
    ("category", "type", "kind", "class", "group"),
    ("salary", "pay", "wage", "compensation"),
    ("employee", "staff", "worker"),
    ("department", "dept"),
    ("temperature", "temp"),
    ("population", "inhabitant", "pop"),
    ("rating", "score", "star"),
    ("city", "town"),
    ("gender", "sex"),
    ("store", "shop", "branch", "outlet"),
    ("discount", "rebate"),
    ("price", "cost"),
    ("amount", "value"),
    ("person", "name"),
    ("channel", "medium"),
    ("expense", "spending", "expenditure", "cost"),
    ("duration", "length"),
    ("humidity", "moisture"),
)


def same_meaning(one: str, other: str) -> bool:
    """Whether two stems name the same thing in most tables."""
    return any(one in group and other in group for group in _SAME)


TAILS: Final = frozenset(("id", "name", "code", "no", "number", "key", "nr", "title", "label"))
"""Endings of names that say how a thing is written down, not what it is: `customer_id` is about customers."""

MEASURES: Final = frozenset(
    ("usd", "eur", "gbp", "chf", "jpy", "dollar", "euro", "kg", "g", "lb", "cm", "mm", "m", "km", "mile", "c", "f", "k",
     "kwh", "ms", "sec", "second", "min", "minute", "hour", "pct")
)  # fmt: skip
"""Endings of names that say in which measure a number is given: `weight_kg` is a weight."""

IDENTIFIERS: Final = frozenset(("id", "code", "no", "number", "key", "nr", "zip", "index", "uuid", "postcode", "phone"))

NOT_ADDITIVE: Final = frozenset(
    ("price", "rate", "ratio", "temperature", "temp", "age", "rating", "score", "percent", "percentage", "pct",
     "discount", "height", "weight", "speed", "share", "latitude", "longitude", "humidity", "pressure", "year",
     "salary", "wage", "star", "grade", "margin", "average", "mean", "width", "depth", "density", "level", "bmi",
     "stock", "balance", "population", "gpa", "concentration", "ph", "voltage", "size")
)  # fmt: skip
"""Words in the names of columns whose sum means nothing: asked without an aggregate, their mean or extreme is meant."""

ROW_NOUNS: Final = frozenset(
    ("row", "record", "entry", "line", "observation", "order", "sale", "transaction", "purchase", "case", "item",
     "datum", "point", "event", "invoice", "booking", "measurement", "reading", "person", "employee", "student",
     "patient", "passenger", "member", "player", "participant", "respondent", "user")
)  # fmt: skip
"""What people call a row of a table; a column of that name goes first."""

# --- meaning of other words -------------------------------------------------------------------------------------------
_AGGREGATES: Final[tuple[tuple[Aggregate, str], ...]] = (
    ("sum", "total|totals|sum|overall|altogether|combined|in all|add up|adds up|how much|cumulated|aggregate|sums"),
    ("mean", "average|averages|mean|avg|on average|typical|typically"),
    ("median", "median|medians|middle"),
    ("std", "standard deviation|std|stdev|deviation"),
    ("max", "maximum|max|maximal"),
    ("min", "minimum|min|minimal"),
    ("count", "count|counts|number of|how many|how often|frequency|numbers of"),
    ("distinct", "distinct|different|unique"),
)
AGGREGATE_WORDS: Final = {phrase(text): aggregate for aggregate, texts in _AGGREGATES for text in texts.split("|")}

HIGH: Final = frozenset(
    ("highest", "largest", "biggest", "greatest", "most", "best", "top", "strongest", "leading", "latest", "newest",
     "oldest", "longest", "tallest", "heaviest", "hottest", "warmest", "busiest", "fastest", "higher", "larger",
     "bigger", "more", "better", "richest", "priciest", "costliest", "peak", "last")
)  # fmt: skip
LOW: Final = frozenset(
    ("lowest", "smallest", "least", "fewest", "worst", "bottom", "weakest", "cheapest", "earliest", "youngest",
     "shortest", "lightest", "coldest", "slowest", "lower", "smaller", "fewer", "less", "poorest", "first")
)  # fmt: skip
ADJECTIVES: Final = {
    "expensive": ("price", "cost"), "priciest": ("price",), "costliest": ("cost", "price"), "cheapest": ("price",),
    "cheap": ("price",), "oldest": ("age",), "youngest": ("age",), "tallest": ("height",), "heaviest": ("weight",),
    "lightest": ("weight",), "hottest": ("temperature",), "warmest": ("temperature",), "coldest": ("temperature",),
    "fastest": ("speed",), "slowest": ("speed",), "populous": ("population",),
    **dict.fromkeys(("spent", "spend", "spends", "paid", "earn", "earns", "earned"), ("revenue", "amount", "spending")),
    **dict.fromkeys(("sell", "sells", "sold", "selling", "bought"), ("quantity", "revenue")),
}  # fmt: skip
"""What an adjective or a verb is about, where the question names no column; the first whose column exists."""

SMALL_NUMBERS: Final = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "twelve": 12, "fifteen": 15, "twenty": 20,
}  # fmt: skip

_UNITS: Final[tuple[tuple[Unit, str], ...]] = (
    ("hour", "hour|hourly|hours"),
    ("day", "day|daily|days|date|dates"),
    ("weekday", "weekday|weekdays|day of the week|day of week|days of the week"),
    ("week", "week|weekly|weeks"),
    ("month", "month|monthly|months"),
    ("quarter", "quarter|quarterly|quarters"),
    ("year", "year|yearly|annual|annually|years"),
)
UNITS: Final = {phrase(text): unit for unit, texts in _UNITS for text in texts.split("|")}
OVER_TIME: Final = tuple(
    phrase(text)
    for text in ("over time", "over the time", "trend", "trends", "time series", "timeline", "through time")
)

GROUP_WORDS: Final = tuple(
    phrase(text)
    for text in (
        "by", "per", "for each", "for every", "in each", "in every", "of each", "of every", "each", "every", "across",
        "broken down by", "split by", "grouped by", "group by", "divided by", "for all", "for the different", "within",
    )
)  # fmt: skip
ASKING: Final = frozenset(("which", "what", "whose", "who", "where", "when"))

SHARE: Final = frozenset(("share", "percentage", "percent", "proportion", "fraction", "%", "part", "portion"))
CORRELATION: Final = frozenset(
    ("correlation", "correlate", "correlated", "correlates", "relationship", "related", "relate", "relates", "depend",
     "depends", "association", "associated", "affect", "affects", "influence", "influences", "impact", "linked",
     "connection", "relation", "correlations")
)  # fmt: skip
OUTLIERS: Final = frozenset(
    ("outlier", "outliers", "anomaly", "anomalies", "anomalous", "unusual", "unusually", "abnormal", "extreme",
     "extremes", "suspicious", "odd")
)  # fmt: skip
COLUMNS: Final = frozenset(("column", "columns", "field", "fields", "variables"))
DESCRIBE: Final = frozenset(
    ("describe", "summary", "summarize", "summarise", "overview", "statistics", "stats", "distribution", "distributed",
     "histogram", "profile", "spread", "range")
)  # fmt: skip
QUALITY: Final = frozenset(("missing", "blank", "blanks", "null", "nulls", "empty", "quality", "incomplete"))
CHANGE: Final = frozenset(
    ("growth", "grow", "grew", "grown", "growing", "change", "changed", "changes", "increase", "increased",
     "increasing", "decrease", "decreased", "decline", "declined", "fell", "rose", "rise", "evolve", "evolved",
     "develop", "developed")
)  # fmt: skip
COMPARE: Final = frozenset(("compare", "compared", "comparison", "versus", "vs"))
EXCLUDE: Final = frozenset(("excluding", "exclude", "without", "except", "not", "besides", "ignoring", "non"))
YES: Final = frozenset(("yes", "y", "true", "t"))
NO: Final = frozenset(("no", "n", "false", "f"))

REFUSED: Final[dict[str, str]] = {
    word: what
    for words, what in (
        ("why reason reasons cause causes caused because explain", "reasons and causes"),
        ("predict prediction forecast forecasts projection project expect expected future tomorrow will would",
         "forecasts"),
        ("should recommend recommendation advise suggest", "recommendations"),
        ("regression cluster clusters clustering classify sentiment model significant significance test anova",
         "statistical models and tests"),
        ("today yesterday ago currently now recent recently", "dates relative to today"),
        ("cumulative running rolling moving percentile percentiles quartile quantile variance mode ratio capita",
         "this statistic"),
        ("join merge lookup", "joining files"),
        ("delete update insert overwrite", "changing the file"),
    )
    for word in words.split()
}  # fmt: skip
"""Words that ask for what these rules cannot do, and what that is."""

_FILLERS: Final = """
    a about across against all also among amongst amount an and answer any are as ascending at be been being between
    both break breakdown bring brings broken brought by calculate came can chart come comes compute contain
    contained contains contribute contributed contributes could create csv current dashboard data dataset date
    descending did different display do does doesn't done down draw during each earn entire ever every exactly exist
    exists figure figures file find for from gave generate generated get give given gives go got graph grouped had
    happen happened happens has have having hello her here hey hi his how how's i i'd i'm if in included including
    into is isn't it its just kinds know let let's like list look looks made make makes many me much my name named
    names need number numbers occur occurred occurs of off on only or order ordered other our out over overall
    pattern per perform performance performed performing picture place placed please plot population question rank
    ranked ranking really receive received recorded report reported result results row rows s seem seen set several
    show shown shows so some sort sorted split spreadsheet statistic table take tell than thank thanks that the
    their them then there these they thing things this those through time times to together trend under until up us
    use used using value values via visualise visualize want was way we were what what's when where where's which
    while who who's whole whose wise with within would you your
"""
FILLERS: Final = frozenset(_FILLERS.split())
"""Words that carry no meaning of their own for these rules; every other word must be understood or the rules say so."""

MONTHS: Final = {
    name: number
    for number, names in enumerate(
        (
            "january jan", "february feb", "march mar", "april apr", "may", "june jun", "july jul", "august aug",
            "september sep sept", "october oct", "november nov", "december dec",
        ),
        1,
    )
    for name in names.split()
}  # fmt: skip
