//! The JSON of a model to a tree, in its order. YAML would refuse characters that JSON allows.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::node::{Entry, Mapping, Node, Value};
use super::problem::{Place, Problem, Read};

/// Parses a model that has no file: places are paths such as `services.default.image`.
pub(crate) fn parse(json: &str) -> Read<Node> {
    let mut root: Node = serde_json::from_str(json).map_err(|error| {
        let place = Place::text(error.line().max(1), error.column().max(1));
        Problem::at(&place, format!("this is not valid JSON: {error}"))
    })?;
    name_places(&mut root, "");
    Ok(root)
}

fn name_places(node: &mut Node, path: &str) {
    node.place = Place::Model(Arc::from(path));
    match &mut node.value {
        Value::Mapping(mapping) => {
            for entry in &mut mapping.0 {
                let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                entry.place = Place::Model(Arc::from(path.as_str()));
                name_places(&mut entry.value, &path);
            }
        }
        Value::Sequence(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                name_places(item, &format!("{path}[{index}]"));
            }
        }
        Value::Null | Value::Scalar(_) => {}
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Builder)
    }
}

struct Builder;

fn node(value: Value, plain: bool) -> Node {
    Node { place: Place::Model(Arc::from("")), value, plain }
}

impl<'de> Visitor<'de> for Builder {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(node(Value::Null, true))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(node(Value::Scalar(value.to_string()), true))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(node(Value::Scalar(value.to_string()), true))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(node(Value::Scalar(value.to_string()), true))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(node(Value::Scalar(value.to_string()), true))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(node(Value::Scalar(text.to_owned()), false))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut sequence = Vec::new();
        while let Some(item) = items.next_element()? {
            sequence.push(item);
        }
        Ok(node(Value::Sequence(sequence), false))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Node, A::Error> {
        let mut mapping = Mapping::default();
        while let Some((key, value)) = fields.next_entry::<String, Node>()? {
            if mapping.entry(&key).is_some() {
                return Err(A::Error::custom(format!("the key `{key}` is written twice")));
            }
            mapping.0.push(Entry { key, place: Place::Model(Arc::from("")), value });
        }
        Ok(node(Value::Mapping(mapping), false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn every_text_reads_back(text in proptest::collection::vec(proptest::char::any(), 0..40)) {
            let text: String = text.into_iter().collect();
            let json = serde_json::json!({ "key": text, format!("{text}2"): 1 }).to_string();
            let root = parse(&json).unwrap();
            let mapping = root.mapping("").unwrap();
            proptest::prop_assert_eq!(mapping.get("key").unwrap().text("").unwrap(), &text);
            proptest::prop_assert_eq!(mapping.0.len(), 2);
        }
    }

    #[test]
    fn order_places_and_kinds_are_kept() {
        let root = parse(r#"{"z": "1", "a": [1.5, null, true, -3, 1.0]}"#).unwrap();
        let mapping = root.mapping("").unwrap();
        assert_eq!(mapping.0[0].key, "z");
        let items = mapping.0[1].value.sequence("a").unwrap();
        let texts: Vec<_> = items.iter().map(Node::describe).collect();
        assert_eq!(texts, ["`1.5`", "nothing", "`true`", "`-3`", "`1`"]);
        assert_eq!(items[2].place, Place::Model(Arc::from("a[2]")));
        assert!(items[0].plain && !mapping.0[0].value.plain);
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in ["", "{", "{\"a\": 1, \"a\": 2}", &"[".repeat(100_000)] {
            assert!(parse(text).is_err());
        }
    }
}
