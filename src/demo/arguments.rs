//! Arguments of a tool or a prompt; errors name the faulty one.

use serde_json::{Map, Number, Value};

use super::wrong;
use crate::protocol::jsonrpc::RpcError;

/// The arguments of one call.
pub(super) struct Arguments<'a> {
    of: &'a str,
    fields: Option<&'a Map<String, Value>>,
}

impl<'a> Arguments<'a> {
    /// Takes `arguments` out of the parameters. Only `known` ones may be there.
    pub(super) fn read(
        of: &'a str,
        params: &'a Map<String, Value>,
        known: &[&str],
    ) -> Result<Arguments<'a>, RpcError> {
        let fields = match params.get("arguments") {
            None => None,
            Some(value) => Some(
                value
                    .as_object()
                    .ok_or_else(|| wrong(format!("{of}: \"arguments\" must be an object.")))?,
            ),
        };
        let names = fields.into_iter().flat_map(Map::keys);
        if let Some(name) = names.into_iter().find(|name| !known.contains(&name.as_str())) {
            return Err(wrong(format!("{of}: there is no argument {name:?}.")));
        }
        Ok(Arguments { of, fields })
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields?.get(name)
    }

    fn wrong(&self, name: &str, wanted: &str) -> RpcError {
        let of = self.of;
        match self.get(name) {
            None => wrong(format!("{of}: the argument {name:?} is missing.")),
            Some(_) => wrong(format!("{of}: the argument {name:?} must be {wanted}.")),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, RpcError> {
        let text = self.get(name).and_then(Value::as_str);
        text.ok_or_else(|| self.wrong(name, "a string"))
    }

    pub(super) fn number(&self, name: &str) -> Result<&'a Number, RpcError> {
        let number = self.get(name).and_then(Value::as_number);
        number.ok_or_else(|| self.wrong(name, "a number"))
    }

    /// A number of seconds up to `most`.
    pub(super) fn seconds(&self, name: &str, most: f64) -> Result<f64, RpcError> {
        let seconds = self.get(name).and_then(Value::as_f64);
        let seconds = seconds.filter(|seconds| (0.0..=most).contains(seconds));
        seconds.ok_or_else(|| self.wrong(name, &format!("a number between 0 and {most}")))
    }

    /// A whole number from 1 up to `most`, if it is there.
    pub(super) fn count(&self, name: &str, most: u32) -> Result<Option<u32>, RpcError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| (1..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(name, &format!("a whole number between 1 and {most}"))),
        }
    }
}

/// A parameter that must be a string.
pub(super) fn parameter<'a>(
    params: &'a Map<String, Value>,
    method: &str,
    name: &str,
) -> Result<&'a str, RpcError> {
    let text = params.get(name).and_then(Value::as_str);
    text.ok_or_else(|| wrong(format!("{method}: {name:?} must be a string.")))
}
