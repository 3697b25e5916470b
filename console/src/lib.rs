//! HTTP: health, metrics, commands, the schema registry API
