//! Servers that do what no server may: over HTTP at every stage of a contact, in streams of
//! events, in lists, and as children. Each costs its own callers one clear error, and nobody else
//! anything.

mod bodies;
mod bounds;
mod catalogues;
mod children;
mod events;
mod faulty;
mod http;
mod rounds;
