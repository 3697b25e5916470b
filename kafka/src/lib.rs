//! Topics, relay, subscriptions and the schema registry client
