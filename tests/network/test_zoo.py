"""What `layers="auto"` stands for in networks of many kinds; see zoo.py."""

import pytest
import zoo

from keras_collab import NetworkReader


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_taps(name):
    build, taps = zoo.NETWORKS[name]
    assert [tap.path for tap in NetworkReader(build()).taps()] == taps
