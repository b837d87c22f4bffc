//! A JSON document with keys in it, whose texts are overwritten when it is dropped. Pure.

use serde_json::Value;
use zeroize::Zeroize as _;

use crate::secrets::Text;

/// The document.
pub(super) struct Document(pub(super) Value);

impl Document {
    pub(super) fn read(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text).map(Self)
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text in an object that is there and not empty.
pub(super) fn field(value: &Value, key: &str) -> Option<Text> {
    let text = value.get(key).and_then(Value::as_str);
    let text = text.filter(|text| !text.is_empty());
    text.map(|text| Text::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_wiped_however_deep() {
        let text = r#"{"a":"one","b":[{"c":"two"},["three",1,null,true]]}"#;
        let mut document = Document::read(text).unwrap();
        assert_eq!(field(&document.0, "a").unwrap().as_str(), "one");
        assert_eq!(field(&document.0, "b"), None);
        wipe(&mut document.0);
        let wiped = r#"{"a":"","b":[{"c":""},["",1,null,true]]}"#;
        assert_eq!(document.0.to_string(), wiped);
    }
}
