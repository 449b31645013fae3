import math

import pytest
from matplotlib.figure import Figure

from ecgjax.metrics.bootstrap import Interval
from ecgjax.reports.figures import BLUE, GREY, Mark, forest, panels


def test_a_forest_has_a_row_for_everybody_and_bars_for_intervals():
    nan = math.nan
    marks = [
        Mark("whole", Interval(0.7, 0.6, 0.8, 9, 9), BLUE),
        Mark("absent", None, BLUE),
        Mark("unknown", Interval(nan, nan, nan, 0, 0), BLUE),
        Mark("bare", Interval(0.62, nan, nan, 9, 9), GREY),
    ]
    axes = Figure().subplots()
    forest(axes, marks)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["whole", "absent", "unknown", "bare"]
    assert [(list(line.get_xdata()), line.get_ydata()[0], line.get_color()) for line in axes.lines] == [
        ([0.7], 0, BLUE),
        ([0.6, 0.8], 0, BLUE),
        ([0.62], 3, GREY),
    ]
    low, high = axes.get_ylim()
    assert low > 3 > 0 > high  # The first row is on top.


@pytest.mark.parametrize(("count", "size"), [(2, (5.0, 2.0)), (7, (7.0, 6.0))])
def test_panels_fill_rows_and_leave_the_rest_blank(count, size):
    figure, grid = panels(count, across=3, inches=(2.0, 2.0), margin=1.0)
    assert tuple(figure.get_size_inches()) == size
    assert len(grid) == count
    assert [axes.axison for axes in figure.axes] == [axes in grid for axes in figure.axes]
