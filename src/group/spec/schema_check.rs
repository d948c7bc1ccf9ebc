//! The check of a spec's shape: types, bounds and forms of single fields, by the schema that the CRD publishes. An API
//! server has checked all of it, unless its CRD is older than the operator, or edited.
//!
//! kube's feature `cel` evaluates the rules of a schema (`x-kubernetes-validations`), but not its types, bounds and
//! patterns, which are checked here. The rules are Rust code in [`check`](super::check): each names the field and what
//! to do.

use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;

use serde_json::Value;

use super::invalid::{Invalid, invalid};
use crate::api::crd;

/// The limit of characters that an error quotes from a wrong value.
const SHOWN: usize = 64;

static SPEC: LazyLock<Shape> = LazyLock::new(|| {
    let crd = serde_json::to_value(crd()).unwrap_or_default();
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
    // Values of a newer version are refused with a message of their own.
    for (object, field) in [("candidate", "mode"), ("leaderService", "type")] {
        schema["properties"][object]["properties"][field]["enum"] = Value::Null;
    }
    Shape::of(&schema)
});

/// Checks the spec of a group, in which null means "not set".
pub(crate) fn check_spec(spec: &Value) -> Result<(), Invalid> {
    SPEC.check(spec, &Path { parent: None, step: Step::Field("spec") })
}

/// Reads the schema now rather than with the first group: that needs some megabytes for a moment.
pub fn prepare() {
    LazyLock::force(&SPEC);
}

/// Removes nulls, as an API server does before any check.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Object,
    List,
    Text,
    Integer,
    Number,
    Boolean,
    IntegerOrText,
    Any,
}

/// A schema, reduced to what the check needs: a twentieth of its JSON, because the operator keeps it in memory.
struct Shape {
    kind: Kind,
    /// The fields of an object by name, in order.
    fields: Box<[(Box<str>, Shape)]>,
    required: Box<[Box<str>]>,
    /// The shape of every item of a list, or of every value of a map.
    inner: Option<Box<Shape>>,
    /// Bounds of a number, or of the size of anything else.
    least: Option<i64>,
    most: Option<i64>,
    values: Box<[Box<str>]>,
    form: Option<&'static Form>,
    /// The fields that identify the items of a list.
    keys: Box<[Box<str>]>,
}

/// A pattern of the schema and its implementation, which avoids a regex engine.
struct Form {
    pattern: &'static str,
    description: &'static str,
    matches: fn(&str) -> bool,
}

/// The path of a value. It is formatted only for an error: a large spec has tens of thousands of values.
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

impl<'a> Path<'a> {
    fn to(&'a self, step: Step<'a>) -> Self {
        Self { parent: Some(self), step }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Item(index) => write!(f, "[{index}]"),
        }
    }
}

impl Shape {
    fn of(schema: &Value) -> Self {
        let kind = match schema["type"].as_str() {
            _ if schema["x-kubernetes-int-or-string"] == true => Kind::IntegerOrText,
            Some("object") => Kind::Object,
            Some("array") => Kind::List,
            Some("string") => Kind::Text,
            Some("integer") => Kind::Integer,
            Some("number") => Kind::Number,
            Some("boolean") => Kind::Boolean,
            _ => Kind::Any,
        };
        let names = |list: &Value| -> Box<[Box<str>]> {
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(Box::from).collect()
        };
        let bound = |names: [&str; 4]| names.iter().find_map(|name| schema[*name].as_f64()).map(|bound| bound as i64);
        let is_short = kind == Kind::Integer && schema["format"] == "int32";
        let inner = ["items", "additionalProperties"].into_iter().map(|inner| &schema[inner]);
        Self {
            kind,
            fields: schema["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, field)| (name.as_str().into(), Self::of(field)))
                .collect(),
            required: names(&schema["required"]),
            inner: inner.into_iter().find(|inner| inner.is_object()).map(|inner| Box::new(Self::of(inner))),
            least: bound(["minimum", "minLength", "minItems", "minProperties"])
                .or(is_short.then_some(i64::from(i32::MIN))),
            most: bound(["maximum", "maxLength", "maxItems", "maxProperties"])
                .or(is_short.then_some(i64::from(i32::MAX))),
            values: names(&schema["enum"]),
            form: schema["pattern"]
                .as_str()
                .map(|pattern| FORMS.iter().find(|form| form.pattern == pattern).unwrap_or(&UNKNOWN)),
            keys: names(&schema["x-kubernetes-list-map-keys"]),
        }
    }

    fn check(&self, value: &Value, path: &Path<'_>) -> Result<(), Invalid> {
        match (self.kind, value) {
            (Kind::Any, _) => Ok(()),
            (Kind::Object, Value::Object(map)) => {
                if let Some(missing) = self.required.iter().find(|name| map.get(&***name).is_none_or(Value::is_null)) {
                    return Err(invalid(format!("{path}.{missing}"), "must be set"));
                }
                self.check_size(map.len(), "entries", path)?;
                let set = map.iter().filter(|(_, value)| !value.is_null());
                set.into_iter().try_for_each(|(name, value)| match self.shape_of(name) {
                    Some(shape) => shape.check(value, &path.to(Step::Field(name))),
                    None => Ok(()),
                })
            }
            (Kind::List, Value::Array(items)) => {
                self.check_size(items.len(), "items", path)?;
                let Some(inner) = &self.inner else { return Ok(()) };
                for (index, item) in items.iter().enumerate() {
                    inner.check(item, &path.to(Step::Item(index)))?;
                }
                self.check_keys(items, path)
            }
            (Kind::Text | Kind::IntegerOrText, Value::String(text)) => self.check_text(text, path),
            (Kind::Integer | Kind::IntegerOrText, Value::Number(number)) if number.is_i64() || number.is_u64() => {
                let within = number.as_i64().is_some_and(|number| {
                    self.kind == Kind::IntegerOrText
                        || self.least.is_none_or(|least| number >= least) && self.most.is_none_or(|most| number <= most)
                });
                if within { Ok(()) } else { Err(self.out_of_bounds("", &number.to_string(), path)) }
            }
            (Kind::Number, Value::Number(_)) | (Kind::Boolean, Value::Bool(_)) => Ok(()),
            _ => Err(invalid(path.to_string(), format!("must be {}, found {}", self.kind.description(), shown(value)))),
        }
    }

    fn shape_of(&self, name: &str) -> Option<&Self> {
        let field = self.fields.iter().find(|(field, _)| **field == *name).map(|(_, shape)| shape);
        field.or(self.inner.as_deref())
    }

    fn check_text(&self, text: &str, path: &Path<'_>) -> Result<(), Invalid> {
        if !self.values.is_empty() && !self.values.iter().any(|value| **value == *text) {
            let values = self.values.iter().map(|value| if value.is_empty() { "\"\"" } else { value });
            let values: Vec<&str> = values.collect();
            return Err(invalid(
                path.to_string(),
                format!("must be one of {}, found {}", values.join(", "), quoted(text)),
            ));
        }
        self.check_size(text.chars().count(), "characters", path)?;
        match self.form {
            Some(form) if !(form.matches)(text) => {
                Err(invalid(path.to_string(), format!("must be {}, found {}", form.description, quoted(text))))
            }
            _ => Ok(()),
        }
    }

    fn check_size(&self, size: usize, unit: &str, path: &Path<'_>) -> Result<(), Invalid> {
        let found = i64::try_from(size).unwrap_or(i64::MAX);
        if self.least.is_some_and(|least| found < least) || self.most.is_some_and(|most| found > most) {
            return Err(self.out_of_bounds(unit, &size.to_string(), path));
        }
        Ok(())
    }

    fn out_of_bounds(&self, unit: &str, found: &str, path: &Path<'_>) -> Invalid {
        let (must, unit) = if unit.is_empty() { ("be", String::new()) } else { ("have", format!(" {unit}")) };
        let bounds = match (self.least, self.most) {
            (Some(least), Some(most)) => format!("from {least} to {most}"),
            (Some(least), None) => format!("at least {least}"),
            (None, Some(most)) => format!("at most {most}"),
            // Larger than any integer in a Kubernetes object.
            (None, None) => format!("at most {}", i64::MAX),
        };
        invalid(path.to_string(), format!("must {must} {bounds}{unit}, found {found}"))
    }

    fn check_keys(&self, items: &[Value], path: &Path<'_>) -> Result<(), Invalid> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let key = |item: &Value| -> Vec<Value> {
            // The only key of a list that has a default.
            let of = |key: &str| match &item[key] {
                Value::Null if key == "protocol" => "TCP".into(),
                value => value.clone(),
            };
            self.keys.iter().map(|name| of(name)).collect()
        };
        let mut seen = HashSet::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let key = key(item);
            if seen.contains(&key) {
                let key: Vec<String> = key.iter().map(shown).collect();
                let rule = format!("must have a unique {}, found {}", self.keys.join(" and "), key.join(" and "));
                return Err(invalid(path.to(Step::Item(index)).to_string(), rule));
            }
            seen.insert(key);
        }
        Ok(())
    }
}

impl Kind {
    const fn description(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::List => "a list",
            Self::Text => "a string",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::IntegerOrText => "an integer or a string",
            Self::Any => "anything",
        }
    }
}

fn quoted(text: &str) -> String {
    shown(&text.into())
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The patterns of the schema.
const FORMS: &[Form] = &[
    Form {
        pattern: r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description: "of a to z, 0 to 9 and -, not beginning or ending with -",
        matches: is_label,
    },
    Form {
        pattern: r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        description: "of a to z, 0 to 9, - and ., each part not beginning or ending with -",
        matches: |text| text.split('.').all(is_label),
    },
    Form {
        pattern: crate::api::schema::IMAGE,
        description: "an image reference, without spaces and of ASCII alone",
        matches: |text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()),
    },
    Form {
        pattern: crate::api::schema::LABEL_VALUE,
        description: "empty or of letters, digits, -, _ and ., beginning and ending with a letter or digit",
        matches: |text| {
            let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
            let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            edge(text.chars().next()) && edge(text.chars().next_back()) && text.chars().all(inner)
        },
    },
    Form {
        pattern: crate::api::schema::QUANTITY,
        description: "a quantity such as 500m, 64Mi or 1G",
        matches: is_quantity,
    },
];

/// The form of an unknown pattern, which accepts everything rather than refuse valid values. A test forbids such
/// patterns.
const UNKNOWN: Form = Form { pattern: "", description: "", matches: |_| true };

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_quantity(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let Some(number) = number_length(text) else { return false };
    let unit = &text[number..];
    let exponent = |text: &str| {
        let text = text.strip_prefix(['+', '-']).unwrap_or(text);
        number_length(text) == Some(text.len())
    };
    match unit {
        "" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => true,
        "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" => true,
        _ => unit.strip_prefix(['e', 'E']).is_some_and(exponent),
    }
}

/// Returns the length in bytes of the unsigned number at the start of `text`: digits with at most one point among,
/// before or after them.
fn number_length(text: &str) -> Option<usize> {
    let mut point = false;
    let mut is_part = |c: char| c.is_ascii_digit() || c == '.' && !std::mem::replace(&mut point, true);
    let length = text.find(|c: char| !is_part(c)).unwrap_or(text.len());
    text[..length].bytes().any(|byte| byte.is_ascii_digit()).then_some(length)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The schema bounds each list, but the check must not depend on that: in quadratic time this takes many minutes.
    #[test]
    fn keys_of_a_long_list_are_compared_in_linear_time() {
        let item = json!({ "type": "object", "properties": { "ip": { "type": "string" } } });
        let schema = json!({ "type": "array", "items": item, "x-kubernetes-list-map-keys": ["ip"] });
        let shape = Shape::of(&schema);
        let mut list: Vec<Value> = (0..200_000).map(|i| json!({ "ip": format!("{i}") })).collect();
        assert_eq!(shape.check(&json!(list), &Path { parent: None, step: Step::Field("list") }), Ok(()));
        list.push(list[7].clone());
        let rule = "must have a unique ip, found \"7\"";
        assert_eq!(
            shape.check(&json!(list), &Path { parent: None, step: Step::Field("list") }),
            Err(invalid("list[200000]", rule))
        );
    }
}
