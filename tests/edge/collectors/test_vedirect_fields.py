from __future__ import annotations

import pytest

from edge.collectors.base import ChannelSpec
from edge.collectors.vedirect_fields import FIELDS, PRODUCTS


@pytest.mark.parametrize("label", FIELDS)
def test_each_field_is_a_channel_that_a_schema_takes(label: str):
    field = FIELDS[label]
    ChannelSpec(field.name, field.unit, field.scale, field.nominal, field.typical_change).to_channel()
    assert field.minimum < field.maximum


def test_names_differ_and_products_name_fields_that_exist():
    assert len({field.name for field in FIELDS.values()}) == len(FIELDS)
    assert all(label in FIELDS for labels in PRODUCTS.values() for label in labels)
