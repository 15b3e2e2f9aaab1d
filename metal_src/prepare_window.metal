// Inputs: window, parameters. Outputs: prepared, vanishes. See window.h.
spectro::prepare_window((const device float*)window, long(window_strides[0]),
                        (const device long*)parameters, prepared, vanishes,
                        thread_position_in_grid.x);
