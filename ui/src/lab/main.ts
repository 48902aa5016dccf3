import { mount } from 'svelte';
import '../kit/tokens.css';
import { shortcuts } from '../lib/keys.svelte';
import { router } from '../lib/router.svelte';
import { session } from '../lib/session.svelte';
import { appearance } from '../lib/theme.svelte';
import App from './App.svelte';
import { install } from './install';

appearance.start();
shortcuts.start();
router.start();
void session.look();

const target = document.getElementById('app');
if (target) mount(App, { target });
install();
