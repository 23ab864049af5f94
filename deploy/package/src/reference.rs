//! The configuration file, section by section, read from its schema.

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value};

/// The sections, those first that others are part of.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) sections: Vec<Section>,
    schema: Value,
}

/// A table of the file.
#[derive(Debug)]
pub(crate) struct Section {
    /// As it is written: `[listen]`, `[[targets]]`.
    pub(crate) title: String,
    pub(crate) text: String,
    /// Those first that must be there.
    pub(crate) keys: Vec<Key>,
}

/// A key of it.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) default: Default,
    pub(crate) text: String,
    pub(crate) choices: Vec<Choice>,
}

/// What counts if the key isn't there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Default {
    /// Nothing: it must be there.
    Required,
    /// Nothing, and that has a meaning of its own.
    None,
    /// This, in TOML.
    Value(String),
}

/// One of the words that a key takes.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) word: String,
    pub(crate) text: String,
}

impl Reference {
    pub(crate) fn of_the_code() -> anyhow::Result<Self> {
        Self::of(schemars::schema_for!(postern::config::file::File).to_value())
    }

    fn of(schema: Value) -> anyhow::Result<Self> {
        let mut reference = Self {
            sections: Vec::new(),
            schema,
        };
        let root = reference.schema.clone();
        reference.add("", false, "", &root)?;
        Ok(reference)
    }

    pub(crate) fn schema(&self) -> String {
        format!("{:#}\n", self.schema)
    }

    /// Adds the table at `path`, and then those below it.
    fn add(&mut self, path: &str, is_list: bool, about: &str, table: &Value) -> anyhow::Result<()> {
        let properties = table
            .get("properties")
            .and_then(Value::as_object)
            .with_context(|| format!("{path} isn't a table"))?;
        let required = table.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|one| one == name));
        let (mut keys, mut below) = (Vec::new(), Vec::new());
        for (name, property) in properties {
            match self.shape(property)? {
                Shape::Tables { table, is_list } => {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    below.push((path, is_list, text_of(property), table));
                }
                Shape::Plain { kind, choices } => keys.push(Key {
                    name: name.clone(),
                    kind,
                    default: if is_required(name) {
                        Default::Required
                    } else {
                        default_of(property)
                    },
                    text: text_of(property),
                    choices,
                }),
            }
        }
        keys.sort_by_key(|key| key.default != Default::Required);
        if !path.is_empty() {
            let own = text_of(table);
            let text = if own.starts_with(about.trim_end_matches('.')) {
                own
            } else {
                format!("{about} {own}")
            };
            self.sections.push(Section {
                title: if is_list {
                    format!("[[{path}]]")
                } else {
                    format!("[{path}]")
                },
                text,
                keys,
            });
        } else {
            ensure!(keys.is_empty(), "keys outside of any table aren't expected");
        }
        for (path, is_list, about, table) in below {
            self.add(&path, is_list, &about, &table)?;
        }
        Ok(())
    }

    fn shape(&self, property: &Value) -> anyhow::Result<Shape> {
        let node = self.resolved(property)?;
        if node.get("properties").is_some() {
            return Ok(Shape::Tables {
                table: node.clone(),
                is_list: false,
            });
        }
        if let Some(items) = node.get("items") {
            let items = self.resolved(items)?;
            if items.get("properties").is_some() {
                return Ok(Shape::Tables {
                    table: items.clone(),
                    is_list: true,
                });
            }
        }
        Ok(Shape::Plain {
            kind: self.kind(property)?,
            choices: choices_of(node),
        })
    }

    /// What is said of it in words.
    fn kind(&self, property: &Value) -> anyhow::Result<String> {
        if refers_to(property) == Some("Duration") {
            return Ok("duration".to_owned());
        }
        if let Some(variants) = variants(property) {
            let real = variants.iter().filter(|variant| !is_null(variant));
            let kinds = real
                .map(|variant| self.kind(variant))
                .collect::<Result<Vec<_>, _>>()?;
            return Ok(kinds.join(" or "));
        }
        let node = self.resolved(property)?;
        if !std::ptr::eq(node, property) && variants(node).is_some() {
            return self.kind(node);
        }
        if !choices_of(node).is_empty() {
            return Ok("word".to_owned());
        }
        let kind = match node.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(Value::Array(kinds)) => kinds
                .iter()
                .filter_map(Value::as_str)
                .find(|kind| *kind != "null")
                .unwrap_or_default(),
            _ => "",
        };
        match kind {
            "array" => {
                let items = node.get("items").context("a list of nothing")?;
                Ok(format!("list of {}s", self.kind(items)?))
            }
            "object" => Ok("table of strings".to_owned()),
            "string" | "integer" | "boolean" => Ok(kind.to_owned()),
            other => anyhow::bail!("the type \"{other}\" isn't known here"),
        }
    }

    /// What it refers to, itself if it refers to nothing; of something that may be left out, that.
    fn resolved<'a>(&'a self, node: &'a Value) -> anyhow::Result<&'a Value> {
        if let Some(name) = refers_to(node) {
            let found = self.schema.get("$defs").and_then(|all| all.get(name));
            return found.with_context(|| format!("{name} isn't in the schema"));
        }
        if let Some(variants) = variants(node) {
            let real: Vec<_> = variants.iter().filter(|variant| !is_null(variant)).collect();
            if let [one] = real.as_slice() {
                return self.resolved(one);
            }
        }
        Ok(node)
    }
}

enum Shape {
    Tables { table: Value, is_list: bool },
    Plain { kind: String, choices: Vec<Choice> },
}

fn refers_to(node: &Value) -> Option<&str> {
    node.get("$ref")?.as_str()?.strip_prefix("#/$defs/")
}

fn variants(node: &Value) -> Option<&Vec<Value>> {
    node.get("anyOf")?.as_array()
}

fn is_null(node: &Value) -> bool {
    node.get("type").is_some_and(|kind| kind == "null")
}

fn choices_of(node: &Value) -> Vec<Choice> {
    let words = node.get("oneOf").and_then(Value::as_array);
    let choice = |one: &Value| {
        Some(Choice {
            word: one.get("const")?.as_str()?.to_owned(),
            text: text_of(one),
        })
    };
    words.into_iter().flatten().filter_map(choice).collect()
}

/// Its description, in one line.
fn text_of(node: &Value) -> String {
    let text = node
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn default_of(property: &Value) -> Default {
    match property.get("default") {
        None | Some(Value::Null) => Default::None,
        Some(value) => Default::Value(toml(value)),
    }
}

fn toml(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(table) => {
            let pairs: Vec<_> = pairs(table).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        plain => plain.to_string(),
    }
}

fn pairs(table: &Map<String, Value>) -> impl Iterator<Item = String> + '_ {
    table
        .iter()
        .map(|(name, value)| format!("{name} = {}", toml(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_a_section() -> anyhow::Result<()> {
        let reference = Reference::of_the_code()?;
        let titles: Vec<_> = reference
            .sections
            .iter()
            .map(|section| section.title.as_str())
            .collect();
        for title in [
            "[listen]",
            "[[targets]]",
            "[[targets.pools]]",
            "[identity.ssm]",
            "[[rules]]",
        ] {
            assert!(titles.contains(&title), "{title} isn't in {titles:?}");
        }
        Ok(())
    }

    #[test]
    fn keys_have_what_the_file_says_of_them() -> anyhow::Result<()> {
        let reference = Reference::of_the_code()?;
        let rows = [
            (
                "[listen]",
                "max_clients",
                "integer",
                Default::Value("10000".to_owned()),
            ),
            (
                "[listen]",
                "drain_timeout",
                "duration",
                Default::Value("\"30s\"".to_owned()),
            ),
            ("[identity]", "sources", "list of strings", Default::Required),
            (
                "[admin]",
                "http",
                "string or boolean",
                Default::Value("\"127.0.0.1:9187\"".to_owned()),
            ),
            (
                "[targets.pool]",
                "mode",
                "word",
                Default::Value("\"auto\"".to_owned()),
            ),
            ("[[targets.pools]]", "mode", "word", Default::None),
            ("[targets.timeouts]", "query", "duration", Default::None),
            (
                "[identity.scram]",
                "verifiers",
                "table of strings",
                Default::Value("{}".to_owned()),
            ),
        ];
        for (title, name, kind, default) in rows {
            let section = reference.sections.iter().find(|section| section.title == title);
            let key = section.and_then(|section| section.keys.iter().find(|key| key.name == name));
            let key = key.with_context(|| format!("{title} has no {name}"))?;
            assert_eq!((key.kind.as_str(), &key.default), (kind, &default), "{name}");
            assert!(!key.text.is_empty(), "{name}");
            assert_eq!(key.choices.is_empty(), kind != "word", "{name}");
        }
        Ok(())
    }
}
