; Short loops in 64-bit mode, timed by the guest. A Multiboot guest for any machine that loads one (a 32-bit ELF file),
; no interrupts; results on port E9h as "NAME INSTRUCTIONS NANOSECONDS" a line. The TSC is measured against the 8254.
; Needs 128 MiB. Ends at port F4h with 16.
bits 32
section .multiboot align=4
        MAGIC equ 0x1badb002
        dd MAGIC, 0, -MAGIC

section .text
global start
start:  mov esp, stack_top
        mov dword [pml4], pdpt + 3
        mov dword [pdpt], pd + 3
        mov edi, pd                     ; the first GiB one to one, in pages of 2 MiB
        mov eax, 0x83
        mov ecx, 512
.pde:   mov [edi], eax
        add edi, 8
        add eax, 0x200000
        loop .pde
        mov eax, cr4
        or eax, 1 << 5 | 1 << 9         ; PAE, OSFXSR
        mov cr4, eax
        mov eax, pml4
        mov cr3, eax
        mov ecx, 0xc0000080             ; EFER.LME
        rdmsr
        or eax, 1 << 8
        wrmsr
        mov eax, cr0
        and eax, ~(1 << 2 | 1 << 3)     ; EM, TS
        or eax, 1 << 31 | 1 << 16 | 1 << 1 ; PG, WP, MP
        mov cr0, eax
        lgdt [gdtr]
        jmp 8:.long
bits 64
.long:  mov ax, 16
        mov ds, ax
        mov es, ax
        mov ss, ax
        fninit
        call calibrate
        mov ebx, loops
.next:  mov rbp, [rbx]                  ; instructions
        test rbp, rbp
        jz .done
        mov r12d, [rbx + 8]
        call timed                      ; decode, links, translations: a first round that does not count
        call timed
        lea esi, [ebx + 12]
        call print
        mov rbx, rsi                    ; the next row
        push rax
        mov rax, rbp
        mov cl, ' '
        call print_number
        pop rax
        mov cl, 10
        call print_number
        jmp .next
.done:  mov dx, 0xf4
        mov eax, 16
        out dx, eax
.halt:  hlt
        jmp .halt

timed:  push rbx                        ; rax: nanoseconds of the routine at r12
        call now
        push rax
        call r12
        call now
        pop rcx
        sub rax, rcx
        mov ecx, INTERVAL_NS
        mul rcx
        div qword [ticks]
        pop rbx
        ret

now:    rdtsc
        shl rdx, 32
        or rax, rdx
        ret

; TSC ticks while counter 2 of the 8254 counts down from COUNT: the least of several, for the machine may be shared.
COUNT equ 59659
INTERVAL_NS equ 49999914
calibrate:
        mov r8d, 5
.again: in al, 0x61
        and al, 0xfd
        or al, 1                        ; gate of counter 2, no sound
        out 0x61, al
        mov al, 0xb0                    ; counter 2, both bytes, mode 0
        out 0x43, al
        mov al, COUNT & 0xff
        out 0x42, al
        mov al, COUNT >> 8
        out 0x42, al
        call now
        mov r9, rax
.wait:  in al, 0x61
        test al, 0x20
        jz .wait
        call now
        sub rax, r9
        cmp rax, [ticks]
        jae .more
        mov [ticks], rax
.more:  dec r8d
        jnz .again
        ret

print:  push rax                        ; the text at rsi, then a space
        cld
.next:  lodsb
        test al, al
        jz .done
        out 0xe9, al
        jmp .next
.done:  mov al, ' '
        out 0xe9, al
        pop rax
        ret
print_number:                           ; rax in decimal, then cl
        mov r8d, 10
        push 0
        push rcx
.digit: xor edx, edx
        div r8
        add edx, '0'
        push rdx
        test rax, rax
        jnz .digit
.out:   pop rax
        out 0xe9, al
        cmp al, '0'
        jae .out                        ; the last one out is cl
        pop rax
        ret

; --- the loops. Each loads its own registers, and leaves rbp, rsp and r12 alone.
%macro rounds 1
        mov ecx, %1
        align 16
%%top:
%define TOP %%top
%endmacro
%macro again 0
        dec rcx
        jnz TOP
        ret
%endmacro

tight:  rounds 100000000
        again

integer:
        rounds 20000000
        add rax, rbx
        xor rdx, rax
        shl rbx, 1
        lea r8, [rax + rdx]
        sub r9, r8
        and rax, r9
        or rbx, 1
        mov r10, rax
        imul r11, r10
        again

copy:   mov esi, source
        mov edi, target
        rounds 20000000
        mov rax, [rsi]
        mov [rdi], rax
        mov rdx, [rsi + 8]
        mov [rdi + 8], rdx
        again

mixed:  mov esi, source
        mov edi, target
        rounds 10000000
        call .f
        add [rdi], rax
        cmp rax, 5
        je .here
.here:  again
.f:     push rbx
        mov rbx, [rsi]
        inc rbx
        pop rbx
        ret

indirect:
        rounds 10000000
        mov eax, ecx
        and eax, 3
        call [targets + rax * 8]
        again
.a:     ret
.b:     ret
.c:     ret
.d:     ret

scalar: movsd xmm0, [one_and_a_half]
        movsd xmm1, [almost_one]
        movsd xmm2, [tenth]
        movsd xmm3, xmm0
        rounds 20000000
        mulsd xmm0, xmm1
        addsd xmm0, xmm2
        mulsd xmm3, xmm1
        addsd xmm3, xmm2
        add rax, rbx
        lea rdx, [rax + rcx]
        again

packed: movapd xmm0, [one_and_a_half]
        movapd xmm1, [almost_one]
        mov esi, tenth
        rounds 10000000
        mulpd xmm0, xmm1
        addpd xmm0, [rsi]
        movdqa xmm2, xmm0
        pxor xmm3, xmm2
        paddd xmm4, xmm3
        again

fpu:    mov esi, almost_one
        mov edi, target
        fld1
        rounds 2000000
        fmul qword [rsi]
        fadd qword [rsi + 16]
        fld st0
        fstp qword [rdi]
        dec rcx
        jnz TOP
        fstp st0
        ret

random: mov esi, 32 << 20               ; 8-byte loads all over 64 MiB
        mov rbx, 6364136223846793005
        rounds 5000000
        imul rax, rbx
        add rax, rbx
        mov rdx, rax
        shr rdx, 38
        mov r8, [rsi + rdx]
        again

strings: rounds 2000                     ; 64 KiB each
        push rcx
        mov esi, 32 << 20
        mov edi, 48 << 20
        mov ecx, 8192
        rep movsq
        pop rcx
        again

space:  mov rax, cr3                    ; a new address space and eight pages of it
        mov esi, 32 << 20
        rounds 100000
        mov cr3, rax
%assign n 0
%rep 8
        mov rdx, [rsi + n * 4096]
%assign n n + 1
%endrep
        again

port:   rounds 2000000
        out 0x80, al
        again

section .data align=16
%macro row 3                            ; what it executes, counted by hand; where; its name
        dq %1
        dd %2
        db %3, 0
%endmacro
loops:
        row 200000000, tight, "tight-dec/jnz"
        row 220000000, integer, "integer-ALU"
        row 120000000, copy, "copy-mov/mov"
        row 110000000, mixed, "mixed-call/ret/push/jcc/read-modify-write"
        row 60000000, indirect, "indirect-calls"
        row 160000000, scalar, "SSE2-scalar-double"
        row 70000000, packed, "SSE2-packed"
        row 12000000, fpu, "x87"
        row 35000000, random, "random-loads-over-64-MiB"
        row 16384000, strings, "rep-movsq-64-KiB"
        row 1100000, space, "mov-cr3-and-8-loads"
        row 6000000, port, "out-80h"
        dq 0
align 16
one_and_a_half: dq 1.5, 1.5
almost_one:     dq 0.9999999, 0.9999999
tenth:          dq 0.1, 0.1
targets:        dd indirect.a, 0, indirect.b, 0, indirect.c, 0, indirect.d, 0
ticks:          dq -1
gdt:            dq 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdtr:           dw 23
                dd gdt

section .bss nobits align=4096
pml4:   resb 4096
pdpt:   resb 4096
pd:     resb 4096
source: resb 4096
target: resb 4096
        resb 4096
stack_top:
