//! The copy engine: a request becomes a plan, the plan is run, the run is reported
