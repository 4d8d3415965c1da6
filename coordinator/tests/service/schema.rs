//! Whether a JSON value fits a schema of an OpenAPI description: the part of JSON Schema that is used there. A property
//! that the schema does not name is an error, so that nothing is answered without being described.

use serde_json::Value;

/// What does not fit, with where; empty if all does.
pub(crate) fn misfits(value: &Value, schema: &Value, document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(value, schema, document, "", &mut found);
    found
}

fn resolve<'a>(schema: &'a Value, document: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => {
            let target =
                document.pointer(reference.trim_start_matches('#')).expect("a reference leads somewhere");
            resolve(target, document)
        }
        None => schema,
    }
}

fn check(value: &Value, schema: &Value, document: &Value, at: &str, found: &mut Vec<String>) {
    let schema = resolve(schema, document);
    for key in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[key].as_array() {
            let fits = choices.iter().any(|choice| misfits(value, choice, document).is_empty());
            if !fits {
                found.push(format!("{at}: {value} fits none of {}", schema[key]));
            }
            return;
        }
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        // Anything.
        _ => return,
    };
    if !types.iter().any(|name| is_of(value, name)) {
        found.push(format!("{at}: {value} is not {types:?}"));
        return;
    }
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(item, &schema["items"], document, &format!("{at}/{index}"), found);
            }
        }
        Value::Object(fields) => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            for name in required.iter().filter_map(Value::as_str).filter(|name| !fields.contains_key(*name)) {
                found.push(format!("{at}: there is no {name}"));
            }
            for (name, field) in fields {
                let at = format!("{at}/{name}");
                match (schema["properties"].get(name), schema.get("additionalProperties")) {
                    (Some(property), _) => check(field, property, document, &at, found),
                    (None, Some(others)) => check(field, others, document, &at, found),
                    (None, None) => found.push(format!("{at} is not described")),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no such type: {other}"),
    }
}
