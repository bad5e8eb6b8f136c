//! Pure: a [`Fetch`] for tests: answers from a script, and keeps what it was asked.

use std::collections::VecDeque;

use super::fetch::{
    Fetch, FetchAnswer, FetchContent, FetchError, FetchRequest, NOT_FOUND, Reach,
};
use crate::sync::Mutex;

type Outcome = Result<FetchAnswer, FetchError>;

/// Answers requests from a script.
#[derive(Default)]
pub(crate) struct ScriptedFetch {
    answers: Mutex<Vec<(String, VecDeque<Outcome>)>>,
    asked: Mutex<Vec<Asked>>,
}

/// A request that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `GET` or `POST`, a space, and the URL.
    pub(crate) line: String,
    /// The body, empty for GET.
    pub(crate) body: String,
    /// The headers.
    pub(crate) headers: Vec<(String, String)>,
    /// The addresses to which it might have gone.
    pub(crate) reach: Reach,
}

impl ScriptedFetch {
    /// Answers the next request of this line (`GET https://…`) with this status and body, after
    /// the answers that are there for the same line. The last answer of a line is given again.
    pub(crate) fn answer(&self, line: &str, status: u16, body: &str) {
        let body = body.as_bytes().to_owned();
        self.give(line, Ok(FetchAnswer { status, body, ..FetchAnswer::default() }));
    }

    /// The same for any answer.
    pub(crate) fn give(&self, line: &str, answer: Outcome) {
        let mut answers = self.answers.lock();
        match answers.iter_mut().find(|(it, _)| it == line) {
            Some((_, queue)) => queue.push_back(answer),
            None => answers.push((line.to_owned(), VecDeque::from([answer]))),
        }
    }

    /// The requests since the last look.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock())
    }
}

impl Fetch for ScriptedFetch {
    fn fetch(&self, request: &FetchRequest<'_>) -> Outcome {
        let (method, body) = match request.content {
            FetchContent::Get => ("GET", String::new()),
            FetchContent::Form(body) | FetchContent::Json(body) => {
                ("POST", body.expose().to_owned())
            }
        };
        let line = format!("{method} {}", request.url);
        let headers = request.headers.iter();
        let headers = headers
            .map(|(name, value)| ((*name).to_owned(), value.expose().to_owned()))
            .collect();
        self.asked.lock().push(Asked {
            line: line.clone(),
            body,
            headers,
            reach: request.reach,
        });
        let mut answers = self.answers.lock();
        let queue = answers.iter_mut().find(|(it, _)| *it == line).map(|(_, queue)| queue);
        let next = queue.and_then(|queue| {
            if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() }
        });
        next.unwrap_or_else(|| Ok(FetchAnswer { status: NOT_FOUND, ..FetchAnswer::default() }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::web_url::WebUrl;
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn the_script_is_followed_and_its_last_answer_stays() {
        let fetch = ScriptedFetch::default();
        fetch.answer("POST https://h/token", 200, "1");
        fetch.give("POST https://h/token", Err(FetchError::Failed("no connection".to_owned())));
        let (body, proof) = (Secret::new("a=b".to_owned()), Secret::new("proof".to_owned()));
        let ask = |url: &str| {
            fetch.fetch(&FetchRequest {
                url: &WebUrl::parse(url).unwrap(),
                content: FetchContent::Form(&body),
                headers: &[("dpop", proof.clone())],
                reach: Reach::PublicOnly,
                timeout: Duration::from_secs(1),
            })
        };
        assert_eq!(ask("https://h/token").unwrap().body, b"1");
        for _ in 0..2 {
            assert_eq!(ask("https://h/token").unwrap_err().to_string(), "no connection");
        }
        assert_eq!(ask("https://h/other").unwrap().status, NOT_FOUND);
        let asked = fetch.asked();
        assert_eq!(asked.len(), 4);
        assert_eq!(asked[3].line, "POST https://h/other");
        assert_eq!((asked[0].body.as_str(), asked[0].reach), ("a=b", Reach::PublicOnly));
        assert_eq!(asked[0].headers, [("dpop".to_owned(), "proof".to_owned())]);
        assert!(fetch.asked().is_empty());
    }
}
