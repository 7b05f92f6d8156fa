"""Rankings and their scores are trec_eval's, whatever ties and in whatever order the passages come."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from ragcun_cli.data.collection import read_collection
from ragcun_cli.evaluate.scoring import Evaluation, Scheme, evaluate
from ragcun_cli.evaluate.search import search
from ragcun_cli.results.metrics import Judgements, score
from tests.properties.inputs import new_folder
from tests.results.test_ties import names_at_trec_eval
from tests.retrieval_tasks import Qrels, embedded_by, write_task

# Small whole numbers: many passages are equally far from a query, and no distance is rounded.
PLACES = st.tuples(st.integers(-2, 2), st.integers(-2, 2))
PASSAGE_IDS = st.text(st.sampled_from("ab019_é"), min_size=1, max_size=4)


@st.composite
def tasks(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, str], Qrels]:
    """id -> place of passages and of queries, each place written as its text, and the judgements."""
    places = PLACES.map(json.dumps)
    passages = draw(st.dictionaries(PASSAGE_IDS, places, min_size=1, max_size=30))
    queries = {f"q{number}": place for number, place in enumerate(draw(st.lists(places, min_size=1, max_size=5)))}
    grades = st.dictionaries(st.sampled_from(sorted(passages)), st.integers(-1, 3), min_size=1)
    return passages, queries, {each: draw(grades) for each in queries}


def on_a_grid(texts: list[str]) -> np.ndarray:
    return np.array([json.loads(text) for text in texts], dtype=np.float32)


def evaluated(folder: Path, passages: dict[str, str], queries: dict[str, str], grades: Qrels) -> Evaluation:
    collection = read_collection(write_task(folder / "task", passages, queries, grades))
    folder.mkdir(exist_ok=True)
    return evaluate(embedded_by(on_a_grid, collection), collection, Scheme(), None, search, False, folder)


@given(task=tasks())
def test_every_figure_is_trec_evals(task: tuple[dict[str, str], dict[str, str], Qrels]) -> None:
    passages, queries, grades = task
    with new_folder() as folder:
        found = evaluated(folder, passages, queries, grades)
    at, runs = on_a_grid(list(passages.values())), {}
    for query, place in queries.items():
        distances = ((at - on_a_grid([place])) ** 2).sum(axis=1)
        runs[query] = dict(zip(passages, (-distances).tolist(), strict=True))
    names = names_at_trec_eval()
    theirs = pytrec_eval.RelevanceEvaluator(grades, {asked for asked, _ in names.values()}).evaluate(runs)
    for name, (_, answer) in names.items():
        expected = [theirs[query][answer] for query in queries]
        np.testing.assert_allclose(found.per_query[name], expected, atol=1e-12, rtol=0, err_msg=name)


@given(task=tasks(), data=st.data())
def test_the_order_of_lines_changes_no_figure(
    task: tuple[dict[str, str], dict[str, str], Qrels], data: st.DataObject
) -> None:
    passages, queries, grades = task
    order = data.draw(st.permutations(list(passages)))
    with new_folder() as folder:
        found = evaluated(folder / "a", passages, queries, grades)
        again = evaluated(folder / "b", {each: passages[each] for each in order}, queries, grades)
    for name, figures in found.per_query.items():
        np.testing.assert_array_equal(again.per_query[name], figures, err_msg=name)


@given(
    ranked=st.permutations(range(12)),
    returned=st.integers(0, 12),
    grades=st.dictionaries(st.integers(0, 15), st.integers(-1, 4), min_size=1),
)
def test_any_ranking_scores_what_trec_eval_gives_it(ranked: list[int], returned: int, grades: dict[int, int]) -> None:
    """Without ties; the passages 12 to 15 are judged and never found."""
    row = [*ranked[:returned], *[-1] * (12 - returned)]
    found = score(Judgements.of([grades]), np.array([row]))
    names = names_at_trec_eval()
    judge = pytrec_eval.RelevanceEvaluator(
        {"q": {f"p{each}": grade for each, grade in grades.items()}}, {asked for asked, _ in names.values()}
    )
    run = {f"p{each}": float(-rank) for rank, each in enumerate(ranked[:returned])}
    theirs = judge.evaluate({"q": run}).get("q")
    for name, (_, answer) in names.items():
        # trec_eval leaves out a query without results; as with its option -c, it counts as 0.
        expected = theirs[answer] if theirs is not None else 0.0
        np.testing.assert_allclose(found[name], [expected], atol=1e-12, rtol=0, err_msg=name)
