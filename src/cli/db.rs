//! `rockpool db`.

use std::process::ExitCode;

use super::block_on;
use crate::catalog::{Catalog, SCHEMA_VERSION, SchemaState};
use crate::config::Config;

/// Exit codes of `db check`, as `glance-manage db check` has codes for work to be done.
const EXIT_OLDER: u8 = 3;
const EXIT_NEWER: u8 = 4;

/// Brings the schema up to date.
pub(super) fn upgrade(config: &Config) -> ExitCode {
    let applied = block_on(async {
        let catalog = Catalog::new(&config.catalog).map_err(|e| e.to_string())?;
        catalog.migrate().await.map_err(|e| e.to_string())
    });
    match applied {
        Ok(versions) if versions.is_empty() => println!("the schema is at version {SCHEMA_VERSION} already"),
        Ok(versions) => println!("applied {versions:?}; the schema is at version {SCHEMA_VERSION}"),
        Err(error) => {
            eprintln!("rockpool: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Says whether the schema is up to date.
pub(super) fn check(config: &Config) -> ExitCode {
    let state = block_on(async {
        let catalog = Catalog::new(&config.catalog).map_err(|e| e.to_string())?;
        catalog.schema_state().await.map_err(|e| e.to_string())
    });
    match state {
        Ok(SchemaState::Current) => {
            println!("the schema is at version {SCHEMA_VERSION}, as needed");
            ExitCode::SUCCESS
        }
        Ok(SchemaState::Older(found)) => {
            println!("the schema is at version {found}, version {SCHEMA_VERSION} is needed: run rockpool db upgrade");
            ExitCode::from(EXIT_OLDER)
        }
        Ok(SchemaState::Newer(found)) => {
            println!(
                "the schema is at version {found}, this program knows versions up to {SCHEMA_VERSION}: run a newer rockpool"
            );
            ExitCode::from(EXIT_NEWER)
        }
        Err(error) => {
            eprintln!("rockpool: {error}");
            ExitCode::FAILURE
        }
    }
}
