"""Text to terms: what a word is, which words of a query are left out, which forms are one term.

Words are runs of letters and digits, without accents and case, cut to their English stem (Snowball). Words of languages
that write no spaces are not cut apart: for those use dense retrieval or an engine of your own.
"""

import tantivy

_LONGEST_WORD = 64  # bytes; longer ones are no words and would swell the index

# Function words of English. They are indexed like all others, and left out of a query that has other words.
STOP_WORDS = frozenset(
    """
    a about above after again against all also am among an and any are as at be became because been before being below
    between both but by can could did do does doing down during each few for from further had has have having he her
    here hers herself him himself his how i if in into is it its itself just like made make many me more most much must
    my myself no nor not now of off on once one only or other our ours ourselves out over own same she should so some
    such than that the their theirs them themselves then there these they this those through to too under until up upon
    us very was we well were what when where whether which while who whom whose why will with would you your yours
    yourself yourselves
    """.split()
)


def analyzer() -> tantivy.TextAnalyzer:
    """Gives the terms of a text, in order."""
    filters = tantivy.Filter
    return (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(filters.remove_long(_LONGEST_WORD))
        .filter(filters.ascii_fold())
        .filter(filters.lowercase())
        .filter(filters.stemmer("english"))
        .build()
    )


def stop_terms() -> frozenset[str]:
    """The stop words as terms."""
    return frozenset(analyzer().analyze(" ".join(sorted(STOP_WORDS))))
