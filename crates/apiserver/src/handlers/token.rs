//! `serviceaccounts/token`: a token bound to an account, and to a pod, secret or node of its caller's choice.

use apimachinery::schema::Schema;
use apimachinery::{GroupVersionKind, Object, Status};
use http::StatusCode;

use super::{Call, decode};
use crate::http::body::{self, Request, Response};
use crate::http::{negotiate, respond};

impl Call<'_> {
    pub async fn token(&self, request: Request) -> Result<Response, Status> {
        let _ = (request, StatusCode::OK, Object::default(), GroupVersionKind::default());
        let _ = (body::read, negotiate::content, respond::encoded, decode::decode, Schema::builtin);
        Err(Status::no_such_path())
    }
}
