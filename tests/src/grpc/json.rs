//! Messages as JSON, so that tests can write requests and read replies without generated types.

use anyhow::{Context as _, Result, bail};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value as Field};
use serde_json::Value;

/// A message of this type with the fields of a JSON object. Enumerators go by name.
///
/// # Errors
/// Names a field that the type does not have or that cannot hold the value.
pub(super) fn to_message(descriptor: &MessageDescriptor, json: &Value) -> Result<DynamicMessage> {
    let object = json.as_object().with_context(|| format!("{} is not an object", json))?;
    let mut message = DynamicMessage::new(descriptor.clone());
    for (name, value) in object {
        let field = descriptor.get_field_by_name(name);
        let field = field.with_context(|| format!("{} has no field {name}", descriptor.full_name()))?;
        let value = match value {
            Value::Array(items) if field.is_list() => {
                Field::List(items.iter().map(|item| to_field(&field.kind(), item)).collect::<Result<_>>()?)
            }
            value => to_field(&field.kind(), value)?,
        };
        let fits = message.try_set_field(&field, value);
        fits.with_context(|| format!("the value does not fit into {name}"))?;
    }
    Ok(message)
}

/// A message as JSON: only the fields that are set, enumerators by name, bytes as numbers.
pub(super) fn from_message(message: &DynamicMessage) -> Value {
    let fields =
        message.fields().map(|(field, value)| (field.name().to_owned(), from_field(&field.kind(), value)));
    Value::Object(fields.collect())
}

fn to_field(kind: &Kind, json: &Value) -> Result<Field> {
    let not = || format!("{json} is no {kind:?}");
    Ok(match kind {
        Kind::Bool => Field::Bool(json.as_bool().with_context(not)?),
        Kind::String => Field::String(json.as_str().with_context(not)?.to_owned()),
        Kind::Double => Field::F64(json.as_f64().with_context(not)?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            Field::I32(json.as_i64().with_context(not)?.try_into()?)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Field::I64(json.as_i64().with_context(not)?),
        Kind::Uint32 | Kind::Fixed32 => Field::U32(json.as_u64().with_context(not)?.try_into()?),
        Kind::Uint64 | Kind::Fixed64 => Field::U64(json.as_u64().with_context(not)?),
        Kind::Enum(names) => {
            let name = json.as_str().with_context(not)?;
            Field::EnumNumber(names.get_value_by_name(name).with_context(not)?.number())
        }
        Kind::Message(inner) => Field::Message(to_message(inner, json)?),
        Kind::Float | Kind::Bytes => bail!("no request of ours has a {kind:?}"),
    })
}

fn from_field(kind: &Kind, value: &Field) -> Value {
    match value {
        Field::Bool(value) => (*value).into(),
        Field::I32(value) => (*value).into(),
        Field::I64(value) => (*value).into(),
        Field::U32(value) => (*value).into(),
        Field::U64(value) => (*value).into(),
        Field::F32(value) => (*value).into(),
        Field::F64(value) => (*value).into(),
        Field::String(value) => value.as_str().into(),
        Field::Bytes(value) => value.iter().copied().collect(),
        Field::EnumNumber(number) => match kind {
            Kind::Enum(names) => names.get_value(*number).map_or((*number).into(), |name| name.name().into()),
            _ => (*number).into(),
        },
        Field::Message(message) => from_message(message),
        Field::List(items) => items.iter().map(|item| from_field(kind, item)).collect(),
        // No reply of ours has a map.
        Field::Map(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::DescriptorPool;
    use serde_json::json;

    fn descriptor(name: &str) -> Result<MessageDescriptor> {
        DescriptorPool::global().get_message_by_name(name).context("no such message")
    }

    #[test]
    fn there_and_back() -> Result<()> {
        // FieldDescriptorProto has a number, a text, an enumeration and a message.
        let descriptor = descriptor("google.protobuf.FieldDescriptorProto")?;
        let json = json!({"name": "x", "number": 7, "label": "LABEL_REPEATED", "options": {"packed": true}});
        assert_eq!(from_message(&to_message(&descriptor, &json)?), json);
        Ok(())
    }

    #[test]
    fn what_the_type_cannot_hold_is_refused() -> Result<()> {
        let descriptor = descriptor("google.protobuf.FieldDescriptorProto")?;
        for json in
            [json!({"nombre": "x"}), json!({"number": "7"}), json!({"label": "LABEL_NONE"}), json!([])]
        {
            assert!(to_message(&descriptor, &json).is_err(), "{json}");
        }
        Ok(())
    }
}
