//! A pod's volumes over its life: fetched and made before its first container, made anew when something changed.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::try_join_all;
use jiff::Timestamp;

use super::{Next, RESYNC, Worker};
use crate::pod::spec;
use crate::runtime::PodState;
use crate::volumes::{self, Mounted, payload};

impl Worker {
    pub(super) fn until_refresh(&self) -> Duration {
        let left = self.tokens_refresh.map(|at| at.duration_since(Timestamp::now()).unsigned_abs());
        left.map_or(RESYNC, |left| left.min(RESYNC))
    }

    /// Makes volumes, or brings them up to date after a change of the pod, of an object, or of a token's age.
    pub(super) async fn set_up_volumes(&mut self, state: &PodState) -> Result<(), Next> {
        let version = self.pod.metadata.resource_version.clone();
        let changed = self.wake.volumes.swap(false, Ordering::Relaxed);
        let stale = self.tokens_refresh.is_some_and(|at| at <= Timestamp::now());
        if self.volumes.is_some() && self.volumes_of == version && !changed && !stale {
            return Ok(());
        }
        match self.try_set_up_volumes(state).await {
            Ok(mounted) => {
                self.volumes = Some(mounted);
                self.volumes_of = version;
                self.volume_failures = 0;
                Ok(())
            }
            Err(errors) => {
                let about = self.shared.about(&self.pod);
                for error in errors {
                    self.shared.recorder.warning(&about, "FailedMount", error);
                }
                let pause = Duration::from_millis(500) * 2u32.pow(self.volume_failures.min(8));
                self.volume_failures += 1;
                self.wake.volumes.store(true, Ordering::Relaxed);
                // containers that run keep what they have
                if self.volumes.is_some() { Ok(()) } else { Err(Next::Wait(pause)) }
            }
        }
    }

    async fn try_set_up_volumes(
        &mut self,
        state: &PodState,
    ) -> Result<HashMap<String, Mounted>, Vec<String>> {
        let (shared, pod) = (self.shared.clone(), self.pod.clone());
        let mut needs = payload::Needs::default();
        for volume in spec::spec(&pod).volumes.iter().flatten() {
            let own = payload::needs(volume);
            needs.config_maps.extend(own.config_maps);
            needs.secrets.extend(own.secrets);
            needs.tokens.extend(own.tokens);
        }
        let (uid, namespace) = (spec::uid(&pod), spec::namespace(&pod));
        let maps = needs.config_maps.into_iter().map(|name| async {
            let found = shared.config_maps.get(uid, namespace, &name).await?;
            Ok::<_, String>((name, found))
        });
        let secrets = needs.secrets.into_iter().map(|name| async {
            let found = shared.secrets.get(uid, namespace, &name).await?;
            Ok::<_, String>((name, found))
        });
        let now = Timestamp::now();
        let tokens = needs.tokens.into_iter().map(|key| async {
            let (token, refresh) = shared.tokens.get(&pod, &key, now).await?;
            Ok::<_, String>((key, token, refresh))
        });
        let fetched = tokio::try_join!(try_join_all(maps), try_join_all(secrets), try_join_all(tokens));
        let (maps, secrets, tokens) =
            fetched.map_err(|error| vec![format!("MountVolume.SetUp failed : {error}")])?;
        self.tokens_refresh = tokens.iter().map(|(_, _, refresh)| *refresh).min();
        let objects = payload::Objects {
            config_maps: maps.into_iter().collect(),
            secrets: secrets.into_iter().collect(),
            tokens: tokens.into_iter().map(|(key, token, _)| (key, token)).collect(),
        };
        let around = shared.surroundings(&state.ips());
        let made =
            tokio::task::spawn_blocking(move || volumes::set_up(&pod, &shared.paths, &objects, &around))
                .await;
        match made {
            Ok(Ok(mounted)) => Ok(mounted),
            Ok(Err(errors)) => Err(errors.iter().map(ToString::to_string).collect()),
            Err(error) => Err(vec![error.to_string()]),
        }
    }
}
