//! The suite of the port: what every store is held to, as functions of the store.
//! [`every_test`] makes tests of them; one that it does not name is reported as
//! unused.

pub(super) mod audio;
pub(super) mod conversations;
pub(super) mod deletions;
pub(super) mod imports;
pub(super) mod jobs;
pub(super) mod memories;
pub(super) mod model;
pub(super) mod outbox;
pub(super) mod times;
pub(super) mod uploads;
pub(super) mod users;
pub(super) mod versions;

/// The suite as tests of one store.
macro_rules! every_test {
    ($store:ty) => {
        $crate::store::tests::tests_of! { $store,
            audio {
                only_what_nothing_waits_for_is_archived_and_only_once
                a_copy_that_nobody_wants_any_more_goes
                recordings_come_to_the_bucket_once_they_have_come_to_rest
                an_object_of_a_deleted_recording_is_known_until_it_is_gone
            }
            conversations {
                a_conversation_comes_back_as_it_was_stored
                lists_are_newest_first_and_of_one_user
                a_window_comes_with_its_job_and_only_once
                closing_adds_the_tail_once_and_keeps_the_first_reason
                a_conversation_without_speech_is_settled_at_its_close
                the_tail_takes_the_lane_of_what_came_before
                the_last_transcript_of_a_closed_conversation_makes_the_finish_job
                a_stale_lease_changes_nothing
                a_transcript_after_the_finish_settles_the_conversation_again
                a_finish_job_at_work_is_started_over_when_a_transcript_arrives
                what_lost_its_job_is_queued_again
                finished_jobs_are_forgotten_after_a_week
            }
            deletions {
                a_conversation_goes_with_all_that_hangs_on_it
                memories_that_are_to_stay_lose_only_their_origin
                an_open_conversation_is_not_deleted
                the_job_at_hand_of_a_deleted_conversation_is_void
                a_user_goes_with_the_data_that_was_named_or_not_at_all
                what_a_deleted_conversation_had_replaced_comes_back
                audio_goes_only_once_it_is_transcribed
                a_recording_that_is_to_go_is_never_adopted
                somebody_who_may_not_log_in_begins_no_conversation
            }
            imports {
                a_user_who_comes_is_new_or_somebody_known
                a_past_conversation_comes_whole_and_once
                what_a_past_conversation_waits_for_is_done_here
                a_recording_that_was_left_comes_later
                memories_come_once_and_know_their_conversation
                a_chat_comes_once_and_grows
            }
            jobs {
                lanes_go_before_age
                a_claim_is_counted_and_only_for_what_is_due
                while_work_is_put_off_only_what_somebody_waits_for_is_given_out
                a_clock_that_is_set_back_strands_no_job
                a_worker_that_starts_anew_puts_back_its_own_jobs_alone
                a_dead_window_is_failed_and_the_conversation_goes_on
                a_postponed_job_has_lost_no_attempt
                dead_steps_mark_their_conversation_and_a_retry_unmarks_it
                a_window_that_is_tried_again_waits_again
                dead_work_that_is_queued_again_is_not_queued_twice
                voiding_leases_can_take_the_attempt_back
                two_workers_never_get_the_same_job
                what_is_held_waits_for_the_close
                windows_of_a_closed_conversation_are_claimed_together
                results_that_belong_together_are_kept_together
            }
            memories {
                what_is_learned_is_found_everywhere_and_settles_the_conversation
                an_update_replaces_text_vector_and_origin
                a_forgotten_memory_leaves_only_its_history
                the_memories_of_others_cannot_be_changed
                a_change_to_a_memory_deleted_meanwhile_keeps_the_new_fact
                words_are_found_in_any_form_and_best_first
                one_embedding_model_at_a_time
                a_vector_of_the_wrong_shape_is_refused
            }
            outbox {
                changes_are_noted_once_and_only_while_somebody_follows
                each_follower_hears_of_changes_by_itself
            }
            times {
                a_step_corrects_the_times_of_an_estimate_and_no_others
                what_is_to_come_is_carried_over_a_step
            }
            uploads {
                a_file_waits_for_its_recording_and_is_closed_with_it
                the_same_bytes_of_one_user_are_one_conversation
                a_file_that_is_given_up_can_be_tried_again
                a_file_whose_job_was_lost_gets_another
            }
            users {
                addresses_are_unique_in_any_case
                a_new_password_or_a_logout_everywhere_ends_tokens_and_nothing_else_does
                ended_tokens_are_known_until_they_expire_and_do_not_pile_up
                there_is_always_an_administrator
                a_user_who_owns_something_stays
                a_device_keeps_its_first_time_and_its_owner
                the_first_value_of_a_setting_stays
                the_audit_trail_outlives_its_actor
            }
            versions {
                a_new_transcript_is_shown_when_it_is_complete
                a_new_transcript_that_fails_leaves_the_old_one
                only_what_is_there_can_be_made_again
                lost_jobs_of_new_versions_are_found
                new_memories_take_the_place_of_the_old_ones_and_give_it_back
                what_a_set_did_to_other_memories_is_undone_with_it
                a_memory_changed_since_stays_as_it_is
                a_forgotten_memory_does_not_come_back
                a_stale_lease_makes_no_set
                the_shelf_follows_a_change_of_the_embedding_model
                segments_are_corrected_by_their_place
                details_come_for_many_conversations_at_once
                a_crop_is_kept_with_its_job
            }
        }
        $crate::store::tests::properties_of! { $store,
            audio::coverage_adds_up_whatever_happens
            memories::any_text_is_a_query
            model::the_table_follows_the_model
        }
    };
}

macro_rules! tests_of {
    ($store:ty, $($file:ident { $($test:ident)* })*) => {
        $(mod $file { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::store::tests::$file::$test::<$store>().await;
                $crate::store::testing::passed::<$store>(stringify!($test));
            }
        )* })*
    };
}

macro_rules! properties_of {
    ($store:ty, $($file:ident::$test:ident)*) => {
        $(#[test]
        fn $test() {
            $crate::store::tests::$file::$test::<$store>();
            $crate::store::testing::passed::<$store>(stringify!($test));
        })*
    };
}

pub(super) use {every_test, properties_of, tests_of};
