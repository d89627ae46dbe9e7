"""Values of a schema of the OpenAPI document, some of them spoilt, as hypothesis strategies."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.serving.stories import at

KNOWN = ["ann", "bob", "cem", "BTC", "SOL", "ETH", "USD"]
"""Names that the story has announced."""

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e308, -1e308, 5e-324, -0.0, 2**53 + 1, 2**63, 10**400]),
    st.sampled_from(["", "\x00", "é", "a" * 257, [], {}]),
    st.text(max_size=8),
)  # fmt: skip
"""What may stand where something else is expected."""


class Schemas:
    """Strategies for the schemas of one document; `spoilt_percent` of all values are something else."""

    def __init__(self, document: dict[str, Any], spoilt_percent: int) -> None:
        self._components = document["components"]["schemas"]
        self._spoilt_percent = spoilt_percent
        self._made: dict[str, st.SearchStrategy[Any]] = {}

    def values(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        """Values of a schema."""
        right = self._right(schema)
        if not self._spoilt_percent:
            return right
        return st.integers(0, 99).flatmap(
            lambda number: ODD if number >= 100 - self._spoilt_percent else right
        )

    def _right(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            if name not in self._made:
                self._made[name] = st.deferred(lambda: self._right(self._components[name]))
            return self._made[name]
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        if "anyOf" in schema:
            return st.one_of([self._right(entry) for entry in schema["anyOf"]])
        match schema.get("type"):
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case "string":
                return _string(schema)
            case "integer":
                return st.integers(schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1))
            case "number":
                return _number(schema)
            case "boolean":
                return st.booleans()
            case "null":
                return st.none()
        assert "type" not in schema, schema
        return ODD

    def _object(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        fields = {name: self.values(entry) for name, entry in schema.get("properties", {}).items()}
        required = set(schema.get("required", ()))
        return st.fixed_dictionaries(
            {name: values for name, values in fields.items() if name in required},
            optional={name: values for name, values in fields.items() if name not in required},
        )

    def _array(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        least, most = schema.get("minItems", 0), min(schema.get("maxItems", 4), 4)
        if "prefixItems" in schema:
            return st.tuples(*(self.values(entry) for entry in schema["prefixItems"])).map(list)
        return st.lists(self.values(schema.get("items", {})), min_size=least, max_size=max(least, most))


def _string(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if schema.get("format") == "date-time":
        return st.sampled_from([at(minutes) for minutes in (-1e6, 0, 7, 8, 8.5, 9, 1e6)])
    most = min(schema.get("maxLength", 12), 12)
    return st.sampled_from(KNOWN) | st.text(min_size=schema.get("minLength", 0), max_size=most)


def _number(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    wild = st.floats(
        least, schema.get("maximum"), exclude_min="exclusiveMinimum" in schema,
        allow_nan=False, allow_infinity=False,
    )  # fmt: skip
    tame = st.sampled_from([0.001, 0.5, 1.0, 100.0, 60_000.0]) | st.integers(1, 1_000)
    return wild | tame
